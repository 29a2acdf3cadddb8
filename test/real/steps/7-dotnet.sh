# A build with many small files and maps. The SDK is the host's, below /opt.
export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1
export DOTNET_GENERATE_ASPNET_CERTIFICATE=false DOTNET_ADD_GLOBAL_TOOLS_TO_PATH=false
export MSBUILDDISABLENODEREUSE=1 DOTNET_CLI_USE_MSBUILD_SERVER=0 UseSharedCompilation=false
dotnet=/opt/dotnet
"$dotnet" new console --output /srv/hello --no-restore
cd /srv/hello
"$dotnet" restore || { echo 'the SDK cannot restore a console project here' >&3; exit 77; }
"$dotnet" run --no-restore >&3
rm -rf /tmp/* # has random names
