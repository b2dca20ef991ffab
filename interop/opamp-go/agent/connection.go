package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/open-telemetry/opamp-go/client"
)

// connection is how the agent reaches its server.
type connection struct {
	url       string
	webSocket bool
	header    http.Header
	tls       *tls.Config // nil without TLS: the opamp-go client takes any other value as a wish for it
}

func newConnection(o options) (connection, error) {
	endpoint, err := url.Parse(o.url)
	if err != nil {
		return connection{}, err
	}
	c := connection{url: o.url, header: http.Header{}}
	encrypted := false
	if c.webSocket, encrypted, err = transport(endpoint.Scheme); err != nil {
		return connection{}, fmt.Errorf("-url: %w", err)
	}
	if o.token != "" {
		c.header.Set("Authorization", "Bearer "+o.token)
	}
	for _, header := range o.headers {
		name, value, _ := strings.Cut(header, "=")
		c.header.Add(name, value)
	}
	if !encrypted {
		if o.caFile != "" || o.certFile != "" {
			return connection{}, fmt.Errorf("certificates were given, but %s is not encrypted", o.url)
		}
		return c, nil
	}
	c.tls, err = newTLS(o)
	return c, err
}

func transport(scheme string) (webSocket, encrypted bool, err error) {
	switch scheme {
	case "ws":
		return true, false, nil
	case "wss":
		return true, true, nil
	case "http":
		return false, false, nil
	case "https":
		return false, true, nil
	}
	return false, false, fmt.Errorf("scheme %q is none of ws, wss, http, https", scheme)
}

func newTLS(o options) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.caFile != "" {
		text, err := os.ReadFile(o.caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", o.caFile)
		}
	}
	if o.certFile != "" {
		pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (c connection) newClient() client.OpAMPClient {
	if c.webSocket {
		return client.NewWebSocket(stderrLogger{})
	}
	return client.NewHTTP(stderrLogger{})
}

// stderrLogger shows what the opamp-go client says about errors; stdout belongs
// to the events.
type stderrLogger struct{}

func (stderrLogger) Debugf(context.Context, string, ...any) {}

func (stderrLogger) Errorf(_ context.Context, format string, v ...any) {
	fmt.Fprintf(os.Stderr, "opamp-go: "+format+"\n", v...)
}
