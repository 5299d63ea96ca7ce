package main

import (
	"flag"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/cli"
)

// eachCommand calls f with each command of lictor.
func eachCommand(t *testing.T, f func(name string, c cli.Command, flags *flag.FlagSet)) {
	t.Helper()
	for name, factory := range commands(console{}) {
		command, err := factory()
		if err != nil {
			t.Fatal(err)
		}
		f(name, command, command.(interface{ flags() *flag.FlagSet }).flags())
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, c cli.Command, flags *flag.FlagSet) {
		if !strings.HasPrefix(c.Help(), "Usage: lictor "+name) || !strings.Contains(c.Help(), "Examples:") {
			t.Errorf("%s: the help has no usage or no examples", name)
		}
		if !strings.Contains(help, "\n  "+name+" ") {
			t.Errorf("%s is not in the help of lictor", name)
		}
		flags.VisitAll(func(f *flag.Flag) {
			if !regexp.MustCompile(`(?m)^ +-` + f.Name + `\b`).MatchString(c.Help()) {
				t.Errorf("%s: -%s is not in the help", name, f.Name)
			}
		})
	})
	if len(commandNames()) != len(commands(console{})) {
		t.Error("commandNames and commands differ")
	}
}

// An option in the help that the command does not take is as bad as one that is missing there.
func TestHelpNamesNoOtherFlag(t *testing.T) {
	t.Parallel()
	option := regexp.MustCompile(`(?m)^  -([a-z-]+)`)
	example := regexp.MustCompile(`lictor [a-z]+((?: -[a-z-]+| [^-|$&>< ]\S*)*)`)
	eachCommand(t, func(name string, c cli.Command, flags *flag.FlagSet) {
		for _, match := range option.FindAllStringSubmatch(c.Help(), -1) {
			if flags.Lookup(match[1]) == nil {
				t.Errorf("%s: there is no -%s", name, match[1])
			}
		}
		_, examples, _ := strings.Cut(c.Help(), "Examples:")
		for _, match := range example.FindAllStringSubmatch(examples, -1) {
			if !strings.HasPrefix(match[0], "lictor "+name) {
				continue
			}
			for _, word := range strings.Fields(match[1]) {
				if given, is := strings.CutPrefix(word, "-"); is && given != "" && flags.Lookup(given) == nil {
					t.Errorf("%s: the example %q has an unknown -%s", name, match[0], given)
				}
			}
		}
	})
}

func TestHelpFitsATerminal(t *testing.T) {
	t.Parallel()
	texts := []string{help}
	eachCommand(t, func(_ string, c cli.Command, _ *flag.FlagSet) { texts = append(texts, c.Help()) })
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if len(line) > 81 && !strings.HasPrefix(line, "    $ ") {
				t.Errorf("wider than 80 columns: %s", line)
			}
		}
	}
}

// The list of commands says of each what the command says of itself.
func TestHelpHasTheSynopsisOfEveryCommand(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, c cli.Command, _ *flag.FlagSet) {
		line := regexp.MustCompile(`(?m)^  ` + name + ` +(.*)$`).FindStringSubmatch(help)
		if line == nil || line[1] != c.Synopsis() {
			t.Errorf("%s: got %q, want %q", name, line, c.Synopsis())
		}
	})
}

// Help is an answer: it goes to stdout, in whichever way it is asked for.
func TestEveryCommandPrintsItsHelp(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, c cli.Command, _ *flag.FlagSet) {
		for _, args := range [][]string{{name, "-help"}, {name, "--help"}, {name, "-h"}, {"help", name}, {"-h", name}} {
			out, said := lictor(t, exitOK, args...)
			if strings.TrimSpace(out) != strings.TrimSpace(c.Help()) || said != "" {
				t.Errorf("%v: got %q, %q", args, out, said)
			}
		}
	})
}

// A typing error in an option is recognised in every command: whichever letter is missing.
func TestEveryCommandSuggestsItsOptions(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, _ cli.Command, flags *flag.FlagSet) {
		flags.VisitAll(func(f *flag.Flag) {
			if len(f.Name) < 4 {
				return
			}
			typo := f.Name[:2] + f.Name[3:]
			out, said := lictor(t, exitUsage, name, "-"+typo)
			equal(t, out+said, "lictor "+name+": there is no option -"+typo+"; did you mean -"+f.Name+
				"?\nRun \"lictor "+name+" -help\" for how to use it.\n")
		})
	})
}

// Every command completes its options in a shell, and nothing that is none.
func TestEveryCommandCompletesItsOptions(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, c cli.Command, flags *flag.FlagSet) {
		completed := c.(cli.CommandAutocomplete).AutocompleteFlags()
		var want []string
		flags.VisitAll(func(f *flag.Flag) { want = append(want, "-"+f.Name) })
		want = append(want, "-help")
		var got []string
		for flag := range completed {
			got = append(got, flag)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	})
}

// Each is told in one line what is wrong, in another where to read on. Nothing is done.
func TestWrongUsage(t *testing.T) {
	t.Parallel()
	tests := []struct{ args, want string }{
		{"run", "no configuration given: -config PATH names a file, or a directory of *.hcl files"},
		{"run web.hcl", `"web.hcl" is one argument too many; did you mean -config web.hcl?`},
		{"run -config=", "-config is empty: name a file, or a directory of *.hcl files"},
		{"run -config a -log-level loud", `"loud" is no log level: use one of trace, debug, info, warn, error, off`},
		{"run -config", "flag needs an argument: -config"},
		{"forward", "no service given: SERVICE, SERVICE:PORT or SERVICE:PORT/udp"},
		{"forward :80", `":80" names no service: write SERVICE, SERVICE:PORT or SERVICE:PORT/udp`},
		{"forward web:0", `"web:0": "0" is not a port; write a number from 1 to 65535`},
		{"forward web:65536", `"web:65536": "65536" is not a port; write a number from 1 to 65535`},
		{"forward web:1/sctp dns:x", `"web:1/sctp": write /udp, /tcp or nothing behind the port`},
		{"plan", "no configuration given: -config PATH names the new one"},
		{"plan -config a b", `"b" is one argument too many`},
		{"status a b", `"b" is one argument too many`},
		{"top web", `"web" is one argument too many`},
		{"top -interval 99ms", "-interval 99ms is too short: 100ms is the least"},
		{"top -interval 2", `invalid value "2" for flag -interval: parse error`},
		{"top", "this is no terminal: use -once"},
		{"explain", `no SERVICE given; "lictor status" lists them`},
		{"explain a b", `"b" is one argument too many`},
		{"connections a b", `"b" is one argument too many`},
		{"connections -n -1", "-n -1 is negative"},
		{"events a b", `"b" is one argument too many`},
		{"events -n -1", "-n -1 is negative"},
		{"reload web.hcl", `"web.hcl" is one argument too many: the running lictor knows its paths`},
		{"upgrade v2", `"v2" is one argument too many: the running lictor knows its program and paths`},
		{"validate", "no PATH given: name a file, or a directory of *.hcl files"},
		{"validate -live -offline a", "-live and -offline exclude each other"},
		{"fmt", "no PATH given: name files or directories, or - for stdin"},
		{"fmt - a", "- stands alone: stdin cannot be mixed with files"},
		{"version now", `unexpected argument "now"`},
	}
	seen := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			args := strings.Fields(tt.args)
			seen[args[0]] = true
			out, said := lictor(t, exitUsage, args...)
			equal(t, out+said, "lictor "+args[0]+": "+tt.want+"\nRun \"lictor "+args[0]+
				" -help\" for how to use it.\n")
		})
	}
	for _, name := range commandNames() {
		if !seen[name] {
			t.Errorf("%s has no case", name)
		}
	}
}

// What is wrong before a command is reached is said in two lines too, instead of the whole help.
func TestWrongUsageWithoutACommand(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-json status": `-json stands before the command: put it behind "status"`,
		"statsu":       `there is no command "statsu"; did you mean "status"?`,
		"pln":          `there is no command "pln"; did you mean "plan"?`,
		"frobnicate":   `there is no command "frobnicate"`,
		"-frobnicate":  `"-frobnicate" is neither a command nor an option here`,
	} {
		out, said := lictor(t, exitUsage, strings.Fields(args)...)
		equal(t, out+said, "lictor: "+want+"\nRun \"lictor -help\" for how to use it.\n")
	}
}

func TestParseTakesFlagsAnywhere(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args string
		rest []string
		set  bool
	}{
		{"", nil, false},
		{"a b", []string{"a", "b"}, false},
		{"-x a", []string{"a"}, true},
		{"a -x b", []string{"a", "b"}, true},
		{"a -x=false b", []string{"a", "b"}, false},
		{"a -- -x", []string{"a", "-x"}, false},
		{"-x -- -x -y", []string{"-x", "-y"}, true},
		{"-x --", nil, true},
		{"- -x", []string{"-"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			x := flags.Bool("x", false, "")
			rest, err := parse(flags, strings.Fields(tt.args))
			if err != nil || !slices.Equal(rest, tt.rest) || *x != tt.set {
				t.Errorf("got %q, %v, %v, want %q, %v", rest, *x, err, tt.rest, tt.set)
			}
		})
	}
}
