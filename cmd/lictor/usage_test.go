package main

import (
	"flag"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// eachCommand calls f with each command of lictor.
func eachCommand(t *testing.T, f func(name string, c command, flags *flag.FlagSet)) {
	t.Helper()
	for name, c := range commands(console{}) {
		f(name, c, c.flags())
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, c command, flags *flag.FlagSet) {
		if !strings.HasPrefix(c.Help(), "Usage: lictor "+name) || !strings.Contains(c.Help(), "Examples:") {
			t.Errorf("%s: the help has no usage or no examples", name)
		}
		if !strings.Contains(help(commands(console{})), "\n  "+name+" ") {
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

// The help of each command explains all of its exit codes, in order, and no other.
func TestHelpHasTheExitCodesOfEveryCommand(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, c command, flags *flag.FlagSet) {
		_, section, _ := strings.Cut(c.Help(), "\nExit codes:\n\n")
		section, _, _ = strings.Cut(section, "\nExamples:")
		var got []string
		for _, match := range regexp.MustCompile(`(?m)^  ([0-9])    [A-Z]`).FindAllStringSubmatch(section, -1) {
			got = append(got, match[1])
		}
		want := []string{"0", "1", "2"}
		if flags.Lookup("admin") != nil && name != "validate" { // the command needs a running lictor
			want = append(want, "3")
		}
		if name == "status" || name == "mesh" {
			want = append(want, "4")
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got exit codes %q, want %q", name, got, want)
		}
	})
}

// The help names no option that the command does not have, and misses none.
func TestHelpNamesNoOtherFlag(t *testing.T) {
	t.Parallel()
	option := regexp.MustCompile(`(?m)^  -([a-z-]+)`)
	example := regexp.MustCompile(`lictor [a-z]+((?: -[a-z-]+| [^-|$&>< ]\S*)*)`)
	eachCommand(t, func(name string, c command, flags *flag.FlagSet) {
		for _, match := range option.FindAllStringSubmatch(c.Help(), -1) {
			if flags.Lookup(match[1]) == nil {
				t.Errorf("%s: the help names -%s, which does not exist", name, match[1])
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
	texts := []string{help(commands(console{}))}
	eachCommand(t, func(_ string, c command, _ *flag.FlagSet) { texts = append(texts, c.Help()) })
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if len(line) > 81 && !strings.HasPrefix(line, "    $ ") {
				t.Errorf("wider than 80 columns: %s", line)
			}
		}
	}
}

// The list of commands has the synopsis of each command.
func TestHelpHasTheSynopsisOfEveryCommand(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, c command, _ *flag.FlagSet) {
		line := regexp.MustCompile(`(?m)^  ` + name + ` +(.*)$`).FindStringSubmatch(help(commands(console{})))
		if line == nil || line[1] != c.Synopsis() {
			t.Errorf("%s: got %q, want %q", name, line, c.Synopsis())
		}
	})
}

// Each way to ask for help prints it to stdout.
func TestEveryCommandPrintsItsHelp(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, c command, _ *flag.FlagSet) {
		for _, args := range [][]string{{name, "-help"}, {name, "--help"}, {name, "-h"}, {"help", name}, {"-h", name}} {
			out, said := lictor(t, exitOK, args...)
			if strings.TrimSpace(out) != strings.TrimSpace(c.Help()) || said != "" {
				t.Errorf("%v: got %q, %q", args, out, said)
			}
		}
	})
}

// Each command suggests the right option for one with a missing letter.
func TestEveryCommandSuggestsItsOptions(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, _ command, flags *flag.FlagSet) {
		flags.VisitAll(func(f *flag.Flag) {
			if len(f.Name) < 4 {
				return
			}
			typo := f.Name[:2] + f.Name[3:]
			out, said := lictor(t, exitUsage, name, "-"+typo)
			equal(t, out+said, "lictor "+name+": there is no option -"+typo+"; did you mean -"+f.Name+
				"?\nRun \"lictor "+name+" -help\" for help.\n")
		})
	})
}

// Each command completes exactly its own options in a shell.
func TestEveryCommandCompletesItsOptions(t *testing.T) {
	t.Parallel()
	eachCommand(t, func(name string, c command, flags *flag.FlagSet) {
		completed := c.AutocompleteFlags()
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

// Wrong usage prints a line about what is wrong and a line about the help, and does nothing.
func TestWrongUsage(t *testing.T) {
	t.Parallel()
	tests := []struct{ args, want string }{
		{"run", "no configuration given: -config PATH names a file, or a directory of *.hcl files"},
		{"run web.hcl", `unexpected argument "web.hcl"; did you mean -config web.hcl?`},
		{"run -config=", "-config is empty: name a file, or a directory of *.hcl files"},
		{"run -config a -log-level loud", `"loud" is not a log level: use one of trace, debug, info, warn, error, off`},
		{"run -config", "flag needs an argument: -config"},
		{"forward", "no service given: SERVICE, SERVICE:PORT or SERVICE:PORT/udp"},
		{"forward :80", `":80" has no service name: write SERVICE, SERVICE:PORT or SERVICE:PORT/udp`},
		{"forward web:0", `"web:0": "0" is not a port; write a number from 1 to 65535`},
		{"forward web:65536", `"web:65536": "65536" is not a port; write a number from 1 to 65535`},
		{"forward web:1/sctp dns:x", `"web:1/sctp": write /udp, /tcp or nothing after the port`},
		{"forward -mesh web:1", "-mesh needs -as NAME, the service in Consul as which clients reach the others"},
		{"forward -as web db:1", "-as is for -mesh only"},
		{"forward -mesh -as web dns:1/udp", "-mesh is for TCP: Consul's service mesh speaks TLS over TCP only"},
		{"plan", "no configuration given: name the new one with -config PATH"},
		{"plan web.hcl", `unexpected argument "web.hcl"; did you mean -config web.hcl?`},
		{"plan -config a b", `unexpected argument "b"; did you mean -config b?`},
		{"status a b", `unexpected argument "b"`},
		{"top web", `unexpected argument "web"`},
		{"top -interval 99ms", "-interval 99ms is too short: the minimum is 100ms"},
		{"top -interval 2", `invalid value "2" for flag -interval: parse error`},
		{"top", "stdin and stdout are not a terminal: use -once"},
		{"explain", `no SERVICE given; "lictor status" lists the services`},
		{"explain a b", `unexpected argument "b"`},
		{"connections a b", `unexpected argument "b"`},
		{"connections -n -1", "-n -1 is negative"},
		{"events a b", `unexpected argument "b"`},
		{"events -n -1", "-n -1 is negative"},
		{"mesh", `write "lictor mesh status"`},
		{"mesh stauts", `there is no command "stauts" of mesh; did you mean "status"?`},
		{"mesh status web api", `unexpected argument "api"`},
		{"drain", `no ENDPOINT given; "lictor status SERVICE" lists the endpoints`},
		{"drain a b c", `unexpected argument "c"`},
		{"drain -for 0s a", "-for 0s is not above zero"},
		{"drain -for -1m a", "-for -1m0s is not above zero"},
		{"drain -for 10 a", `invalid value "10" for flag -for: parse error`},
		{"undrain", `no ENDPOINT given; "lictor status SERVICE" lists the endpoints`},
		{"undrain a b c", `unexpected argument "c"`},
		{"reload web.hcl", `unexpected argument "web.hcl": the running lictor knows its paths`},
		{"upgrade v2", `unexpected argument "v2": the running lictor knows its program and paths`},
		{"validate", "no PATH given: name a file, or a directory of *.hcl files"},
		{"validate -live -offline a", "-live and -offline cannot be used together"},
		{"fmt", "no PATH given: name files or directories, or - for stdin"},
		{"fmt - a", "- must be the only PATH: stdin cannot be mixed with files"},
		{"completion", "no shell given: bash, zsh or fish"},
		{"completion bash zsh", `unexpected argument "zsh"`},
		{"completion fsh", `there is no completion for "fsh": use one of bash, zsh, fish`},
		{"version now", `unexpected argument "now"`},
	}
	seen := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			args := strings.Fields(tt.args)
			seen[args[0]] = true
			out, said := lictor(t, exitUsage, args...)
			equal(t, out+said, "lictor "+args[0]+": "+tt.want+"\nRun \"lictor "+args[0]+
				" -help\" for help.\n")
		})
	}
	for _, name := range commandNames() {
		if !seen[name] {
			t.Errorf("no case for %s", name)
		}
	}
}

// Wrong usage before the command prints two lines too, instead of the whole help.
func TestWrongUsageWithoutACommand(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-json status": `-json must come after the command: write it after "status"`,
		"statsu":       `there is no command "statsu"; did you mean "status"?`,
		"pln":          `there is no command "pln"; did you mean "plan"?`,
		"frobnicate":   `there is no command "frobnicate"`,
		"-frobnicate":  `"-frobnicate" is neither a command nor an option of lictor`,
	} {
		out, said := lictor(t, exitUsage, strings.Fields(args)...)
		equal(t, out+said, "lictor: "+want+"\nRun \"lictor -help\" for help.\n")
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
