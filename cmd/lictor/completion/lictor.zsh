#compdef lictor
# Completion of lictor for zsh. Load it with: eval "$(lictor completion zsh)", or store it as _lictor in a folder of
# $fpath.
_lictor() {
	local -a replies folders
	replies=("${(@f)$(COMP_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" lictor 2>/dev/null)}")
	folders=("${(@M)replies:#*/}")
	replies=("${(@)replies:#*/}")
	[[ -n "${folders[*]}" ]] && compadd -S '' -- "${folders[@]}"
	[[ -n "${replies[*]}" ]] && compadd -- "${replies[@]}"
}
if [[ "${funcstack[1]}" = _lictor ]]; then
	_lictor "$@"
else
	(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
	compdef _lictor lictor
fi
