package main

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// issuer signs what agents request.
type issuer struct {
	certificate *x509.Certificate
	pem         []byte
	key         crypto.PrivateKey
}

// newIssuer is nil without files.
func newIssuer(certFile, keyFile string) (*issuer, error) {
	if certFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
	return &issuer{certificate: certificate, pem: encoded, key: pair.PrivateKey}, nil
}

// readRequest parses a certificate request and checks that whoever made it has the
// key.
func readRequest(wire *protobufs.ConnectionSettingsRequest) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(wire.GetOpamp().GetCertificateRequest().GetCsr())
	if block == nil {
		return nil, errors.New("no PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return request, request.CheckSignature()
}

// issue makes the offer that answers a request: the certificate without a key, which
// the agent has, for the endpoint over which it asked.
func (i *issuer) issue(c *connection, request *x509.CertificateRequest) (*protobufs.ConnectionSettingsOffers, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: request.Subject, URIs: request.URIs, DNSNames: request.DNSNames,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, i.certificate, request.PublicKey, i.key)
	if err != nil {
		return nil, err
	}
	offers := &protobufs.ConnectionSettingsOffers{Opamp: &protobufs.OpAMPConnectionSettings{
		DestinationEndpoint:      c.endpoint,
		HeartbeatIntervalSeconds: 30,
		Certificate: &protobufs.TLSCertificate{
			Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), CaCert: i.pem,
		},
	}}
	offers.Hash, err = hashOr("", offers)
	return offers, err
}

// answerRequest issues a certificate or says why there is none. Without an issuer it
// does neither.
func (s *server) answerRequest(c *connection, wire *protobufs.ConnectionSettingsRequest, reply *protobufs.ServerToAgent) {
	if s.issuer == nil || wire.GetOpamp().GetCertificateRequest() == nil {
		return
	}
	request, err := readRequest(wire)
	if err == nil && s.noCertificates != "" {
		err = errors.New(s.noCertificates)
	}
	if err == nil {
		reply.ConnectionSettings, err = s.issuer.issue(c, request)
	}
	if err != nil {
		reply.ErrorResponse = &protobufs.ServerErrorResponse{
			Type:         protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest,
			ErrorMessage: fmt.Sprintf("certificate request: %v", err),
		}
	}
}

// endpointOf is the URL over which a request came.
func endpointOf(request *http.Request) string {
	scheme := "http"
	if request.Header.Get("Upgrade") != "" {
		scheme = "ws"
	}
	if request.TLS != nil {
		scheme += "s"
	}
	return scheme + "://" + request.Host + request.URL.Path
}
