# Completion of lictor for bash. Load it with: eval "$(lictor completion bash)"
_lictor() {
	local reply word=${COMP_LINE:0:COMP_POINT}
	word=${word##*[[:space:]]}
	COMPREPLY=()
	while IFS= read -r reply; do
		# Bash replaces only the part of a word after its last colon.
		[[ $COMP_WORDBREAKS == *:* ]] && reply=${reply#"${word%"${word##*:}"}"}
		COMPREPLY+=("$reply")
	done < <(COMP_LINE=$COMP_LINE COMP_POINT=$COMP_POINT lictor 2>/dev/null)
	# A folder goes on with the name of a file.
	[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace 2>/dev/null
	return 0
}
complete -F _lictor lictor
