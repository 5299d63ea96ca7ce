# Completion of lictor for fish. Store it as lictor.fish in ~/.config/fish/completions.
function __complete_lictor
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct)
    and set COMP_LINE "$COMP_LINE "
    lictor 2>/dev/null
end
complete -f -c lictor -a "(__complete_lictor)"
