package main

import (
	"embed"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
)

// scripts has a script for each shell. A script asks lictor for the completions of a line.
//
//go:embed completion
var scripts embed.FS

func shells() []string { return []string{"bash", "zsh", "fish"} }

// completionScript returns the script for one of the shells.
func completionScript(shell string) string {
	text, err := scripts.ReadFile("completion/lictor." + shell)
	if err != nil {
		panic(err) // the program does not have a script for one of its shells
	}
	return string(text)
}

type completionCommand struct{ console }

func (c *completionCommand) flags() *flag.FlagSet {
	return flag.NewFlagSet("completion", flag.ContinueOnError)
}

func (c *completionCommand) Synopsis() string {
	return "Print a script that completes commands in a shell"
}
func (c *completionCommand) AutocompleteFlags() predictors {
	return completeFlags(c.flags(), nil)
}
func (c *completionCommand) AutocompleteArgs() predictor {
	return oneOf(shells()...)
}

func (c *completionCommand) Help() string {
	return `Usage: lictor completion bash|zsh|fish

  Prints a script for a shell, which makes the Tab key complete commands,
  options, files, and the names of services and endpoints. The names come from
  the running lictor. If none answers within a second, the names come from the
  configuration in /etc/lictor. The names for "lictor forward" come from Consul.

  "lictor -autocomplete-install" makes every new shell load the script. It names
  the files that it changes.

Exit codes:

  0    The script was printed.
  1    The output could not be written.
  2    Wrong usage.

Examples:

    $ eval "$(lictor completion bash)"
    $ lictor completion zsh > ~/.zfunc/_lictor
    $ lictor completion fish > ~/.config/fish/completions/lictor.fish
`
}

func (c *completionCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	switch {
	case err != nil:
	case len(rest) == 0:
		err = errors.New("no shell given: bash, zsh or fish")
	case len(rest) > 1:
		err = fmt.Errorf("unexpected argument %q", rest[1])
	case !slices.Contains(shells(), rest[0]):
		err = fmt.Errorf("there is no completion for %q: use one of %s", rest[0], strings.Join(shells(), ", "))
	}
	if err != nil {
		return c.usage("completion", err)
	}
	return c.printText("completion", completionScript(rest[0]))
}
