// Command agent is an OpAMP agent built on the client of the opamp-go module.
//
// It is a complete small agent, not a recording: it reports a description,
// health and its effective config, applies remote configs, restarts when told
// to, and keeps its state in a file so that a new process goes on where the old
// one stopped.
//
// A program can drive it. Every event is one JSON object on one line of stdout
// (see events.go), and every line of stdin is a command:
//
//	health ok              report a healthy agent
//	health bad <text>      report an unhealthy agent with this last error
//	describe <key> <value> set one non-identifying attribute
//	components <name> <version> ...
//	                       have these components, if there were some from the start
//	custom_capabilities <name> ...
//	                       announce these custom capabilities instead of those before
//	custom <capability> <type> <data>
//	                       send a custom message; data in hex, or - for none
//	request_certificate [<common name>]
//	                       make a key, and ask for a certificate for it; the name defaults to the uid
//	quit                   leave with agent_disconnect and exit 0
//
// The end of stdin is not a command, unless -attended makes it one: the agent goes
// on until `quit`, SIGTERM or SIGINT.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"opamp-rs/interop/opamp-go/internal/lines"
)

// stopTimeout bounds a graceful stop. Longer than the five seconds for which
// the opamp-go client waits for the server's close frame.
const stopTimeout = 8 * time.Second

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func run(arguments []string, stdin io.Reader, stdout io.Writer) error {
	options, err := parseOptions(arguments)
	if err != nil {
		return err
	}
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer release()

	agent, err := newAgent(options, lines.NewEvents(stdout))
	if err != nil {
		return err
	}
	return agent.run(ctx, lines.Read(stdin, options.atEnd))
}

// options are the command-line flags.
type options struct {
	atEnd          string
	url            string
	token          string
	headers        headerFlags
	caFile         string
	certFile       string
	keyFile        string
	uid            string
	stateFile      string
	name           string
	version        string
	rejectMarker   string
	heartbeat      time.Duration
	healthInterval time.Duration
	requestUID     bool
	acceptSettings bool
	trial          time.Duration
	packages       string
	components     componentFlags
	custom         nameFlags
}

func parseOptions(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	flags.StringVar(&o.url, "url", "ws://127.0.0.1:4320/v1/opamp", "OpAMP endpoint; ws, wss, http or https")
	flags.StringVar(&o.token, "token", "", "token sent as `Authorization: Bearer`")
	flags.Var(&o.headers, "header", "additional request header as `name=value`; may be repeated")
	flags.StringVar(&o.caFile, "ca", "", "PEM `file` with the certificates that may sign the server's")
	flags.StringVar(&o.certFile, "cert", "", "PEM `file` with the client certificate")
	flags.StringVar(&o.keyFile, "key", "", "PEM `file` with the key of the client certificate")
	flags.StringVar(&o.uid, "uid", "", "instance uid as `UUID`; default: the one in the state file, else a new UUIDv7")
	flags.StringVar(&o.stateFile, "state", "", "`file` that keeps uid, remote config and its status over restarts")
	flags.StringVar(&o.name, "name", "opamp-go-agent", "value of service.name")
	flags.StringVar(&o.version, "version", "0.1.0", "value of service.version")
	flags.StringVar(&o.rejectMarker, "reject", "# reject", "a remote config that contains this `text` is refused with FAILED")
	flags.DurationVar(&o.heartbeat, "heartbeat", 30*time.Second, "heartbeat interval (WebSocket) or polling interval (HTTP)")
	flags.DurationVar(&o.healthInterval, "health-interval", 0, "report health, with a new status time, this often; 0 reports changes only")
	flags.BoolVar(&o.requestUID, "request-uid", false, "ask the server for an instance uid")
	flags.BoolVar(&o.acceptSettings, "accept-settings", false, "take connection settings of every kind")
	flags.DurationVar(&o.trial, "trial", 5*time.Second, "how long a server has to answer over OpAMP settings that it offered")
	flags.StringVar(&o.packages, "packages", "", "take packages, and keep them in this `directory`")
	flags.Var(&o.components, "component", "available component as `name=version`; may be repeated")
	flags.Var(&o.custom, "custom", "custom capability with this `name`; may be repeated")
	attended := flags.Bool("attended", false, "the end of stdin means quit: whoever started this is gone")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if *attended {
		o.atEnd = `quit`
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if (o.certFile == "") != (o.keyFile == "") {
		return o, fmt.Errorf("-cert and -key belong together")
	}
	return o, nil
}

// nameFlags collects repeated flags.
type nameFlags []string

func (n *nameFlags) String() string { return strings.Join(*n, ",") }

func (n *nameFlags) Set(text string) error {
	*n = append(*n, text)
	return nil
}

// componentFlags collects repeated -component flags.
type componentFlags map[string]string

func (c *componentFlags) String() string { return fmt.Sprint(map[string]string(*c)) }

func (c *componentFlags) Set(text string) error {
	name, version, found := strings.Cut(text, "=")
	if !found || name == "" {
		return fmt.Errorf("want name=version, got %q", text)
	}
	if *c == nil {
		*c = componentFlags{}
	}
	(*c)[name] = version
	return nil
}

// headerFlags collects repeated -header flags.
type headerFlags []string

func (h *headerFlags) String() string { return strings.Join(*h, ",") }

func (h *headerFlags) Set(text string) error {
	if name, _, found := strings.Cut(text, "="); !found || name == "" {
		return fmt.Errorf("want name=value, got %q", text)
	}
	*h = append(*h, text)
	return nil
}
