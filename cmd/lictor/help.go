package main

import (
	"fmt"
	"strings"
)

// help returns the help of lictor.
func help(all map[string]command) string {
	var list strings.Builder
	for _, name := range commandNames() {
		fmt.Fprintf(&list, "  %-11s %s\n", name, all[name].Synopsis())
	}
	return helpBegin + list.String() + helpEnd
}

const helpBegin = `Usage: lictor COMMAND [options] [arguments]

  Lictor keeps each service of a Consul catalog on a stable local port, TCP or
  UDP, and forwards each connection to a healthy instance.

Commands:

`

const helpEnd = `
  "lictor COMMAND -help" shows the options of a command and examples.

Other options:

  -help, -h                  Print this help.
  -version, -v               Print the version.
  -autocomplete-install      Make new shells complete commands, options and
                             names. Prints which files of bash, zsh and fish it
                             changes.
  -autocomplete-uninstall    Remove the completion from these files.

Exit codes:

  0    Success.
  1    Failure, such as an invalid configuration, files that fmt -check would
       change, or an address in use.
  2    Wrong usage: an unknown command or option, a missing argument, or no
       command.
  3    No running lictor answers.
  4    A service refuses clients ("lictor status" and "lictor mesh" only).

  The result of a command goes to stdout, everything else to stderr.

Examples:

  Write a first configuration and run lictor with it:

    $ echo 'service "web" { listen = "127.0.0.1:9000" }' > web.hcl
    $ lictor validate web.hcl
    $ lictor run -config web.hcl
`
