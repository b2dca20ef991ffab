package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sort"

	"google.golang.org/protobuf/proto"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// target is one connection in an offer of settings, of whichever kind. What is not
// there is not set on the wire.
type target struct {
	Endpoint           string            `json:"endpoint"`
	Headers            map[string]string `json:"headers"`
	Certificate        string            `json:"certificate"` // PEM, as all that follows
	Key                string            `json:"key"`
	CACertificate      string            `json:"ca_certificate"` // of the authority that signed the certificate
	Trust              string            `json:"trust"`          // authorities of the destination's certificate
	InsecureSkipVerify bool              `json:"insecure_skip_verify"`
	MinVersion         string            `json:"min_version"`
	HeartbeatSeconds   uint64            `json:"heartbeat_seconds"`
}

// offeredPackage is one package of an offer. Hashes and signature are in hex.
type offeredPackage struct {
	Version     string            `json:"version"`
	Hash        string            `json:"hash"` // by default one of everything else
	URL         string            `json:"url"`
	ContentHash string            `json:"content_hash"`
	Signature   string            `json:"signature"`
	Headers     map[string]string `json:"headers"`
	Addon       bool              `json:"addon"`
}

func (t *target) headers() *protobufs.Headers { return headersToWire(t.Headers) }

func headersToWire(headers map[string]string) *protobufs.Headers {
	if len(headers) == 0 {
		return nil
	}
	names := make([]string, 0, len(headers))
	for name := range headers {
		names = append(names, name)
	}
	sort.Strings(names)
	wire := &protobufs.Headers{}
	for _, name := range names {
		wire.Headers = append(wire.Headers, &protobufs.Header{Key: name, Value: headers[name]})
	}
	return wire
}

func (t *target) certificate() *protobufs.TLSCertificate {
	if t.Certificate == "" {
		return nil
	}
	return &protobufs.TLSCertificate{
		Cert: []byte(t.Certificate), PrivateKey: []byte(t.Key), CaCert: []byte(t.CACertificate),
	}
}

func (t *target) tls() *protobufs.TLSConnectionSettings {
	if t.Trust == "" && !t.InsecureSkipVerify && t.MinVersion == "" {
		return nil
	}
	return &protobufs.TLSConnectionSettings{
		CaPemContents: t.Trust, InsecureSkipVerify: t.InsecureSkipVerify, MinVersion: t.MinVersion,
	}
}

func (t *target) opamp() *protobufs.OpAMPConnectionSettings {
	if t == nil {
		return nil
	}
	return &protobufs.OpAMPConnectionSettings{
		DestinationEndpoint: t.Endpoint, Headers: t.headers(), Certificate: t.certificate(), Tls: t.tls(),
		HeartbeatIntervalSeconds: t.HeartbeatSeconds,
	}
}

func (t *target) telemetry() *protobufs.TelemetryConnectionSettings {
	if t == nil {
		return nil
	}
	return &protobufs.TelemetryConnectionSettings{
		DestinationEndpoint: t.Endpoint, Headers: t.headers(), Certificate: t.certificate(), Tls: t.tls(),
	}
}

func (t *target) other() *protobufs.OtherConnectionSettings {
	return &protobufs.OtherConnectionSettings{
		DestinationEndpoint: t.Endpoint, Headers: t.headers(), Certificate: t.certificate(), Tls: t.tls(),
	}
}

// connectionSettings reads an offer from a command. The hash is the given one in
// hex, or one of everything else.
func (c *command) connectionSettings() (*protobufs.ConnectionSettingsOffers, error) {
	offers := &protobufs.ConnectionSettingsOffers{
		Opamp: c.OpAMP.opamp(), OwnMetrics: c.OwnMetrics.telemetry(), OwnTraces: c.OwnTraces.telemetry(),
		OwnLogs: c.OwnLogs.telemetry(),
	}
	for name, other := range c.Others {
		if offers.OtherConnections == nil {
			offers.OtherConnections = map[string]*protobufs.OtherConnectionSettings{}
		}
		offers.OtherConnections[name] = other.other()
	}
	if proto.Size(offers) == 0 {
		return nil, errors.New("settings without any connection")
	}
	var err error
	offers.Hash, err = hashOr(c.Hash, offers)
	return offers, err
}

func (c *command) packagesAvailable() (*protobufs.PackagesAvailable, error) {
	offers := &protobufs.PackagesAvailable{Packages: map[string]*protobufs.PackageAvailable{}}
	for name, offered := range c.Packages {
		content, err := hex.DecodeString(offered.ContentHash)
		if err != nil {
			return nil, err
		}
		signature, err := hex.DecodeString(offered.Signature)
		if err != nil {
			return nil, err
		}
		wire := &protobufs.PackageAvailable{
			Version: offered.Version,
			File: &protobufs.DownloadableFile{
				DownloadUrl: offered.URL, ContentHash: content, Signature: signature, Headers: headersToWire(offered.Headers),
			},
		}
		if offered.Addon {
			wire.Type = protobufs.PackageType_PackageType_Addon
		}
		if wire.Hash, err = hashOr(offered.Hash, wire); err != nil {
			return nil, err
		}
		offers.Packages[name] = wire
	}
	var err error
	offers.AllPackagesHash, err = hashOr(c.Hash, offers)
	return offers, err
}

func hashOr(given string, message proto.Message) ([]byte, error) {
	if given != "" {
		return hex.DecodeString(given)
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(encoded)
	return digest[:], nil
}
