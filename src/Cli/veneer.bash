# Completes command lines of veneer in bash: commands, their options, and the mount options after -o. What there is to
# complete is known to the program. bash-completion finds this file as share/bash-completion/completions/veneer, where
# `make install` puts it; without bash-completion: source it in ~/.bashrc.
_veneer() {
    local line=${COMP_LINE:0:COMP_POINT} candidate
    local word=${line##*[[:space:]]}
    # bash replaces no more than what follows the last of these.
    local kept=${word%"${word##*[=:]}"}
    COMPREPLY=()
    while IFS= read -r candidate; do
        # Where no option is begun, the word may be a file.
        [[ $candidate == "$word"* && ($word == -* || $candidate != -*) ]] || continue
        COMPREPLY+=("${candidate#"$kept"}")
        if [[ $candidate == *= ]]; then compopt -o nospace 2>/dev/null || true; fi
    done < <("$1" "[suggest:${#line}]" "$line" 2>/dev/null)
}
complete -o default -F _veneer veneer
