package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"sort"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
)

const settingsCapabilities = protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings |
	protobufs.AgentCapabilities_AgentCapabilities_AcceptsOtherConnectionSettings |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsConnectionSettingsStatus |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnMetrics |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnTraces |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnLogs

// errorDelay is far more than what passes between two callbacks for one message.
const errorDelay = 100 * time.Millisecond

// settings are OpAMP connection settings over which a server has answered.
type settings struct {
	Hash        []byte      `json:"hash"`
	Endpoint    string      `json:"endpoint"`
	Headers     http.Header `json:"headers,omitempty"`
	Certificate string      `json:"certificate,omitempty"`
	Key         string      `json:"key,omitempty"`
	Authorities string      `json:"authorities,omitempty"` // PEM; empty means those of the flags
}

// candidate is an offer that looks usable and has yet to prove it.
type candidate struct {
	settings   *settings
	connection connection
}

// life tells how the first steps of a client's life went.
type life struct {
	answered chan struct{}
	failed   chan error
}

func newLife() *life {
	return &life{answered: make(chan struct{}, 1), failed: make(chan error, 1)}
}

func (l *life) answer() {
	select {
	case l.answered <- struct{}{}:
	default: // only the first one counts
	}
}

func (l *life) end(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// settingsFromWire reads an offer. A certificate without a key belongs to the key
// of our own request.
func settingsFromWire(offered *protobufs.OpAMPConnectionSettings, hash []byte, requestedKey string) (*settings, error) {
	made := &settings{Hash: hash, Endpoint: offered.GetDestinationEndpoint()}
	for _, header := range offered.GetHeaders().GetHeaders() {
		if made.Headers == nil {
			made.Headers = http.Header{}
		}
		made.Headers.Add(header.GetKey(), header.GetValue())
	}
	if certificate := offered.GetCertificate(); certificate != nil {
		made.Certificate, made.Key = string(certificate.GetCert()), string(certificate.GetPrivateKey())
		if made.Key == "" {
			made.Key = requestedKey
		}
		if made.Key == "" {
			return nil, errors.New("the certificate comes without a key, and none was requested")
		}
	}
	if offered.GetTls().GetInsecureSkipVerify() {
		return nil, errors.New("a server does not decide that this agent need not verify")
	}
	made.Authorities = offered.GetTls().GetCaPemContents()
	return made, nil
}

// connection is how a server is reached with these settings. What they leave open
// is as the flags say, except for the certificate: none offered, none used.
func (s *settings) connection(flags connection) (connection, error) {
	endpoint, err := url.Parse(s.Endpoint)
	if err != nil {
		return connection{}, err
	}
	made := connection{url: s.Endpoint, header: flags.header}
	if s.Headers != nil {
		made.header = s.Headers
	}
	encrypted := false
	if made.webSocket, encrypted, err = transport(endpoint.Scheme); err != nil {
		return connection{}, err
	}
	if !encrypted {
		if s.Certificate != "" {
			return connection{}, fmt.Errorf("a certificate is of no use for %s", s.Endpoint)
		}
		return made, nil
	}
	made.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if flags.tls != nil {
		made.tls.RootCAs = flags.tls.RootCAs
	}
	if s.Authorities != "" {
		made.tls.RootCAs = x509.NewCertPool()
		if !made.tls.RootCAs.AppendCertsFromPEM([]byte(s.Authorities)) {
			return connection{}, errors.New("ca_pem_contents holds no certificate")
		}
	}
	if s.Certificate != "" {
		pair, err := tls.X509KeyPair([]byte(s.Certificate), []byte(s.Key))
		if err != nil {
			return connection{}, err
		}
		made.tls.Certificates = []tls.Certificate{pair}
	}
	return made, nil
}

// onOpAMPSettings judges an offer. The opamp-go client takes nil for success and
// reports APPLIED, although nothing can have been tried yet: stopping the client
// inside its own callback would wait for itself.
func (a *agent) onOpAMPSettings(_ context.Context, offered *protobufs.OpAMPConnectionSettings) error {
	a.mutex.Lock()
	hash, key, kept := a.offeredHash, a.requestedKey, a.state.Settings
	a.mutex.Unlock()
	about := fields{"hash": hex.EncodeToString(hash), "endpoint": offered.GetDestinationEndpoint()}
	next, err := settingsFromWire(offered, hash, key)
	if err == nil && kept != nil && next.sameAs(kept) {
		a.events.Emit(eventSettingsOffered, about)
		return nil
	}
	var reached connection
	if err == nil {
		reached, err = next.connection(a.flags)
	}
	// Before they are tried: that may end before this does, and what came of it counts.
	a.mutex.Lock()
	a.settingsStatus = settingsStatus(hash, err)
	a.mutex.Unlock()
	if err == nil {
		select {
		case a.candidates <- candidate{settings: next, connection: reached}:
		default:
			err = errors.New("other settings are being tried")
			a.mutex.Lock()
			a.settingsStatus = settingsStatus(hash, err)
			a.mutex.Unlock()
		}
	}
	if err != nil {
		about["error"] = err.Error()
	}
	a.events.Emit(eventSettingsOffered, about)
	return err
}

// tryOut ends the client's life and begins one with the offered settings. Unless a
// server answers, the settings before are used again, and FAILED is reported.
func (a *agent) tryOut(next candidate) error {
	if err := a.end(); err != nil {
		return err
	}
	before := a.connection
	a.connection = next.connection
	if err := a.begin(); err != nil {
		return err
	}
	hash := hex.EncodeToString(next.settings.Hash)
	failure := a.awaitAnswer()
	if failure == nil {
		a.mutex.Lock()
		a.state.Settings = next.settings
		err := a.state.save()
		a.mutex.Unlock()
		if err != nil {
			return err
		}
		a.events.Emit(eventSettingsApplied, fields{"hash": hash})
		return nil
	}
	if err := a.end(); err != nil {
		return err
	}
	a.connection = before
	a.mutex.Lock()
	a.settingsStatus = settingsStatus(next.settings.Hash, failure)
	a.mutex.Unlock()
	if err := a.begin(); err != nil {
		return err
	}
	a.events.Emit(eventSettingsFailed, fields{"hash": hash, "error": failure.Error()})
	return nil
}

func (a *agent) awaitAnswer() error {
	a.mutex.Lock()
	current := a.life
	a.mutex.Unlock()
	select {
	case <-current.answered:
	case err := <-current.failed:
		return err
	case <-time.After(a.options.trial):
		return fmt.Errorf("no answer within %v", a.options.trial)
	}
	// opamp-go calls OnMessage for every answer, and OnError after it if that was an error.
	select {
	case err := <-current.failed:
		return err
	case <-time.After(errorDelay):
		return nil
	}
}

// onTelemetrySettings accepts whatever is offered for own telemetry and other
// connections; this agent has none.
func (a *agent) onTelemetrySettings(_ context.Context, offered *protobufs.ConnectionSettingsOffers) error {
	parts := []string{}
	for name, there := range map[string]bool{
		"own_metrics": offered.GetOwnMetrics() != nil,
		"own_traces":  offered.GetOwnTraces() != nil,
		"own_logs":    offered.GetOwnLogs() != nil,
	} {
		if there {
			parts = append(parts, name)
		}
	}
	for name := range offered.GetOtherConnections() {
		parts = append(parts, "other:"+name)
	}
	sort.Strings(parts)
	a.mutex.Lock()
	a.settingsStatus = settingsStatus(offered.GetHash(), nil)
	a.mutex.Unlock()
	a.events.Emit(eventConnectionSettings, fields{"hash": hex.EncodeToString(offered.GetHash()), "parts": parts})
	return nil
}

func settingsStatus(hash []byte, failure error) *protobufs.ConnectionSettingsStatus {
	status := &protobufs.ConnectionSettingsStatus{
		LastConnectionSettingsHash: hash,
		Status:                     protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED,
	}
	if failure != nil {
		status.Status = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_FAILED
		status.ErrorMessage = failure.Error()
	}
	return status
}

// sameAs leaves out the hash: it may be over parts that are none of ours.
func (s *settings) sameAs(other *settings) bool {
	mine, theirs := *s, *other
	mine.Hash, theirs.Hash = nil, nil
	return reflect.DeepEqual(mine, theirs)
}
