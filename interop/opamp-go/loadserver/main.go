// Command loadserver is the smallest OpAMP server that the server of the
// opamp-go module gives: what others are compared with under load.
//
// It answers every message with the agent's uid and the server's capabilities,
// keeps nothing of what agents report, and prints nothing but one JSON object on
// one line of stdout when it listens:
//
//	{"event":"listening","address":"127.0.0.1:4320","control":"127.0.0.1:43210"}
//
// The control port is HTTP:
//
//	POST /push?bytes=4096   sends every agent on a WebSocket one remote config of
//	                        this size with a new hash, and answers, when all
//	                        are sent, how many agents that were
//	GET /agents             answers how many agents are on a WebSocket
//
// Over plain HTTP there is what the library gives: an answer to each poll.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"opamp-rs/interop/opamp-go/internal/lines"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "loadserver:", err)
		os.Exit(1)
	}
}

func run(arguments []string, stdin io.Reader, stdout io.Writer) error {
	options, err := parseOptions(arguments)
	if err != nil {
		return err
	}
	server, err := start(options)
	if err != nil {
		return err
	}
	lines.NewEvents(stdout).Emit("listening", lines.Fields{
		"address": server.opamp.Addr().String(), "control": server.controlAddress,
	})
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer release()
	if options.attended {
		gone := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, stdin) // ends when whoever started this is gone
			close(gone)
		}()
		select {
		case <-ctx.Done():
		case <-gone:
		}
		return server.stop()
	}
	<-ctx.Done()
	return server.stop()
}

// options are the command-line flags.
type options struct {
	listen   string
	control  string
	certFile string
	keyFile  string
	attended bool
}

func parseOptions(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("loadserver", flag.ContinueOnError)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:4320", "`address` for WebSocket and plain HTTP; port 0 takes a free one")
	flags.StringVar(&o.control, "control", "127.0.0.1:0", "`address` of the control port")
	flags.StringVar(&o.certFile, "tls-cert", "", "PEM `file` with the server's certificate; turns TLS on")
	flags.StringVar(&o.keyFile, "tls-key", "", "PEM `file` with the key of the certificate")
	flags.BoolVar(&o.attended, "attended", false, "the end of stdin means quit: whoever started this is gone")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if (o.certFile == "") != (o.keyFile == "") {
		return o, errors.New("--tls-cert and --tls-key belong together")
	}
	return o, nil
}

// newTLS is nil without a certificate. As ours does, it negotiates HTTP/1.1 alone:
// a WebSocket needs it.
func newTLS(o options) (*tls.Config, error) {
	if o.certFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"},
	}, nil
}
