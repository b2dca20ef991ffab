// Command server is an OpAMP server built on the server of the opamp-go module.
//
// It answers every message, says on stdout what it hears, and tells agents what
// it is told on stdin. Every event is one JSON object on one line of stdout (see
// events.go), and every line of stdin is a command, a JSON object as well:
//
//	{"do":"offer","files":{"":"a: 1\n"},"hash":"00ff"}    every agent is to run this; hash defaults to that of the files
//	{"do":"offer_again"}                                  sends the offer to agents that have it already
//	{"do":"restart","files":{"":"a: 1\n"},"hash":"00ff"}  sends the restart command; with files, these are in the same message,
//	                                                      which the specification forbids
//	{"do":"assign","uid":"01930000-…"}                    gives the agent another instance uid
//	{"do":"full_state"}                                   asks for a complete report
//	{"do":"heartbeat","seconds":1}                        offers connection settings with this interval
//	{"do":"settings","hash":"00ff","opamp":{"endpoint":"wss://…","certificate":"…","key":"…"},"own_metrics":{…},"others":{"name":{…}}}
//	                                                      offers connection settings; offers.go lists what a connection can have
//	{"do":"packages","hash":"00ff","packages":{"name":{"version":"1","url":"http://…","content_hash":"00ff"}}}
//	                                                      offers packages; offers.go lists what a package can have
//	{"do":"components"}                                   asks for the available components
//	{"do":"custom_capabilities","names":["…"]}            announces these custom capabilities
//	{"do":"custom","capability":"…","type":"…","data":"00ff"}
//	                                                      sends a custom message
//	{"do":"no_certificates","text":"no"}                  refuses certificate requests with this text; an empty one ends that
//	{"do":"refuse","status":503,"headers":{"Retry-After":"2"},"times":3}
//	                                                      answers the next requests so, before any upgrade; 0 ends that
//	{"do":"unavailable","retry_after_ms":2000,"times":1}  answers the next messages with UNAVAILABLE; without the time,
//	                                                      without retry_info
//	{"do":"disconnect"}                                   closes WebSockets, as opamp-go does: without a Close frame
//	{"do":"quit"}                                         stops, as opamp-go does
//
// "agent":"<uid>" in a command means that agent alone instead of all. Over plain
// HTTP what is sent waits for the agent's next poll. The end of stdin is not a
// command, unless -attended makes it one: the server goes on until `quit`, SIGTERM
// or SIGINT.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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

// stopTimeout bounds the wait for requests that are being answered.
const stopTimeout = 5 * time.Second

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func run(arguments []string, stdin io.Reader, stdout io.Writer) error {
	options, err := parseOptions(arguments)
	if err != nil {
		return err
	}
	server, err := startServer(options, lines.NewEvents(stdout))
	if err != nil {
		return err
	}
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer release()
	commands := lines.Read(stdin, options.atEnd)
	for {
		select {
		case <-ctx.Done():
			return server.stop()
		case line := <-commands:
			if err := server.execute(line); errors.Is(err, errQuit) {
				return server.stop()
			} else if err != nil {
				server.events.Emit(eventCommandRefused, fields{"command": line, "error": err.Error()})
			} else {
				server.events.Emit(eventCommandDone, fields{"command": json.RawMessage(line)})
			}
		}
	}
}

// options are the command-line flags.
type options struct {
	atEnd        string
	listen       string
	certFile     string
	keyFile      string
	clientCAFile string
	optional     bool
	token        string
	offer        string
	custom       nameFlags
	files        string
	filesToken   string

	issuerCertFile string
	issuerKeyFile  string
}

func parseOptions(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:4320", "`address` for WebSocket and plain HTTP; port 0 takes a free one")
	flags.StringVar(&o.certFile, "cert", "", "PEM `file` with the server's certificate; turns TLS on")
	flags.StringVar(&o.keyFile, "key", "", "PEM `file` with the key of the certificate")
	flags.StringVar(&o.clientCAFile, "client-ca", "", "PEM `file` with the certificates that must have signed the agent's")
	flags.BoolVar(&o.optional, "client-optional", false, "agents without a certificate are let in, too")
	flags.StringVar(&o.token, "token", "", "agents without this bearer `token` are answered 401")
	flags.StringVar(&o.offer, "offer", "", "what to offer from the start: the `files` as a JSON object of name and text")
	flags.Var(&o.custom, "custom", "custom capability with this `name`; may be repeated")
	flags.StringVar(&o.files, "files", "", "serve this `directory` on another port, for packages")
	flags.StringVar(&o.filesToken, "files-token", "", "requests for files without this bearer `token` are answered 401")
	flags.StringVar(&o.issuerCertFile, "issuer-cert", "", "PEM `file` with the certificate of the authority that signs what agents request")
	flags.StringVar(&o.issuerKeyFile, "issuer-key", "", "PEM `file` with its key")
	attended := flags.Bool("attended", false, "the end of stdin means quit: whoever started this is gone")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if *attended {
		o.atEnd = `{"do":"quit"}`
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if (o.certFile == "") != (o.keyFile == "") {
		return o, fmt.Errorf("-cert and -key belong together")
	}
	if (o.issuerCertFile == "") != (o.issuerKeyFile == "") {
		return o, fmt.Errorf("-issuer-cert and -issuer-key belong together")
	}
	if o.clientCAFile != "" && o.certFile == "" {
		return o, fmt.Errorf("-client-ca needs -cert and -key")
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

// newTLS is nil without a certificate.
func newTLS(o options) (*tls.Config, error) {
	if o.certFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if o.clientCAFile != "" {
		text, err := os.ReadFile(o.clientCAFile)
		if err != nil {
			return nil, err
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", o.clientCAFile)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if o.optional {
			config.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	return config, nil
}
