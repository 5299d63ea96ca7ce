package main

import (
	"flag"

	"github.com/posener/complete"
)

const help = `Usage: lictor COMMAND [options] [arguments]

  Lictor keeps each service of a Consul catalog on a stable local port, TCP or
  UDP, and forwards each connection to a healthy instance.

Commands:

  run         Serve the services of a configuration
  forward     Open local ports for services in Consul, without a configuration
  plan        Show what a reload would change
  status      Show the services of the running lictor
  top         Show rates, connections and latencies, live
  explain     Show why each endpoint of a service gets clients or not
  connections List connections and sessions
  events      Show past events, and new ones as they happen
  drain       Send no new clients to an endpoint
  undrain     Send new clients to a drained endpoint again
  reload      Make the running lictor read its configuration again
  upgrade     Replace the running process, without dropping connections
  validate    Check a configuration, and report all problems at once
  fmt         Rewrite configuration files in the usual layout
  completion  Print a script that completes commands in a shell
  version     Print the version

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
  4    A service refuses clients ("lictor status" only).

  The result of a command goes to stdout, everything else to stderr.

Examples:

  Write a first configuration and run lictor with it:

    $ echo 'service "web" { listen = "127.0.0.1:9000" }' > web.hcl
    $ lictor validate web.hcl
    $ lictor run -config web.hcl
`

// configurations returns a predictor that completes the names of configuration files and directories.
func configurations() complete.Predictor { return complete.PredictFiles("*.hcl") }

// completeFlags returns the completions for all flags in the set. values has a predictor for each flag whose value can
// be completed, under a key such as "-config".
func completeFlags(flags *flag.FlagSet, values complete.Flags) complete.Flags {
	all := complete.Flags{"-help": nil}
	flags.VisitAll(func(f *flag.Flag) {
		predictor := values["-"+f.Name]
		if toggle, ok := f.Value.(interface{ IsBoolFlag() bool }); predictor == nil && !(ok && toggle.IsBoolFlag()) {
			predictor = complete.PredictAnything // the next word is the value, and no argument of the command
		}
		all["-"+f.Name] = predictor
	})
	return all
}
