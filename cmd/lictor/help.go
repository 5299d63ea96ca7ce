package main

import (
	"flag"

	"github.com/posener/complete"
)

const help = `Usage: lictor COMMAND [options] [arguments]

  Lictor keeps each service of a Consul catalog on a stable local port, TCP or
  UDP, and forwards to whichever healthy instance comes next.

Commands:

  run         Serve what a configuration says, until SIGINT or SIGTERM
  forward     Open local ports for services in Consul, at once
  plan        Show what a reload would change, without doing it
  status      Show what the running lictor serves
  top         Show rates, connections and latencies, live
  explain     Say why each endpoint of a service is in or out
  connections List connections and sessions
  events      Show what happened, and what happens
  reload      Have the running lictor read its configuration again
  upgrade     Have a new process take its place, without a dropped connection
  validate    Check a configuration, and report every problem at once
  fmt         Rewrite configuration files in the usual layout
  version     Print the version

  "lictor COMMAND -help" shows the options of a command, and examples.

Other options:

  -help, -h                  Print this help.
  -version, -v               Print the version.
  -autocomplete-install      Complete commands, options and files in bash, zsh
                             and fish. Takes effect in new shells.
  -autocomplete-uninstall    Undo that.

Exit codes:

  0    Fine.
  1    Failed: an invalid configuration, files that fmt -check would change, an
       address in use.
  2    Wrong usage: an unknown command or option, a missing argument, or no
       command at all.
  3    There is no running lictor to ask.

  Output that was asked for goes to stdout, everything else to stderr.

Examples:

  A first configuration, and lictor with it:

    $ echo 'service "web" { listen = "127.0.0.1:9000" }' > web.hcl
    $ lictor validate web.hcl
    $ lictor run -config web.hcl
`

// configurations returns what completes the names of configuration files and directories.
func configurations() complete.Predictor { return complete.PredictFiles("*.hcl") }

// completeFlags returns what completes the value of each flag in the set. It takes that from values, which has keys
// such as "-config". A flag that is not in values has no value, or one that cannot be completed.
func completeFlags(flags *flag.FlagSet, values complete.Flags) complete.Flags {
	all := complete.Flags{"-help": nil}
	flags.VisitAll(func(f *flag.Flag) { all["-"+f.Name] = values["-"+f.Name] })
	return all
}
