# A repository of 3,000 files: clones, branches, a merge, garbage collection. All dates are fixed, so all hashes are.
export GIT_AUTHOR_DATE='2024-05-06T07:08:09Z' GIT_COMMITTER_DATE='2024-05-06T07:08:09Z'
git config --global user.name Tester
git config --global user.email tester@example.org
git config --global init.defaultBranch main
git config --global pack.threads 1
git config --global gc.auto 0
git config --global advice.detachedHead false

git init -q /srv/origin
cd /srv/origin
for directory in $(seq 60); do
    mkdir "d$directory"
    seq "$((directory * 1000))" "$((directory * 1000 + 999))" | split -l 20 - "d$directory/file-"
done
ln -s d1/file-aa link
git add .
git commit -qm first
for round in 1 2 3; do
    for file in d*/file-a$(printf 'abc' | cut -c $round); do echo "round $round" >>"$file"; done
    git commit -qam "round $round"
done

git clone -q /srv/origin /srv/clone # objects are hard links
git clone -q --no-local /srv/origin /srv/packed
cd /srv/clone
git checkout -q -b topic HEAD~2
git mv d1 moved
git rm -q d2/file-b*
chmod +x d3/file-aa
git commit -qam topic
git checkout -q main
git merge -q -m merge topic
git repack -q -a -d
git gc -q --prune=now
git checkout -q HEAD~1
git checkout -q main
for repository in origin clone packed; do
    git -C "/srv/$repository" fsck --full --strict >&3 2>&1
    git -C "/srv/$repository" status --porcelain --branch >&3
    git -C "/srv/$repository" rev-parse HEAD 'HEAD^{tree}' >&3
done
rm -rf /srv/packed
