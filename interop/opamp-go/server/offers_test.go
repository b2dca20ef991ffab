package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"

	"opamp-rs/interop/opamp-go/internal/testcerts"
)

// poller is an agent that says what a test wants it to, over plain HTTP.
type poller struct {
	url string
	uid uuid.UUID
}

func newPoller(s *runningServer) *poller {
	return &poller{url: "http://" + s.address + "/v1/opamp", uid: uuid.New()}
}

func (p *poller) poll(t *testing.T, message *protobufs.AgentToServer) *protobufs.ServerToAgent {
	t.Helper()
	message.InstanceUid = p.uid[:]
	if message.AgentDescription == nil {
		message.AgentDescription = &protobufs.AgentDescription{}
	}
	encoded, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Post(p.url, "application/x-protobuf", bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	reply := &protobufs.ServerToAgent{}
	if err := proto.Unmarshal(body, reply); err != nil {
		t.Fatal(err)
	}
	return reply
}

func TestSettingsForEveryKindOfConnectionAreOffered(t *testing.T) {
	s := start(t)
	p := newPoller(s)
	p.poll(t, &protobufs.AgentToServer{})
	s.do(t, `{"do":"settings","hash":"0a0b","opamp":{"endpoint":"wss://a/b","headers":{"X":"1"},"certificate":"C","key":"K",`+
		`"ca_certificate":"A","trust":"T","insecure_skip_verify":true,"min_version":"1.3","heartbeat_seconds":9},`+
		`"own_metrics":{"endpoint":"https://m"},"own_traces":{"endpoint":"https://t"},"own_logs":{"endpoint":"https://l"},`+
		`"others":{"db":{"endpoint":"db:1"}}}`)
	got := p.poll(t, &protobufs.AgentToServer{}).GetConnectionSettings()
	want := &protobufs.ConnectionSettingsOffers{
		Hash: []byte{10, 11},
		Opamp: &protobufs.OpAMPConnectionSettings{
			DestinationEndpoint:      "wss://a/b",
			Headers:                  &protobufs.Headers{Headers: []*protobufs.Header{{Key: "X", Value: "1"}}},
			Certificate:              &protobufs.TLSCertificate{Cert: []byte("C"), PrivateKey: []byte("K"), CaCert: []byte("A")},
			Tls:                      &protobufs.TLSConnectionSettings{CaPemContents: "T", InsecureSkipVerify: true, MinVersion: "1.3"},
			HeartbeatIntervalSeconds: 9,
		},
		OwnMetrics:       &protobufs.TelemetryConnectionSettings{DestinationEndpoint: "https://m"},
		OwnTraces:        &protobufs.TelemetryConnectionSettings{DestinationEndpoint: "https://t"},
		OwnLogs:          &protobufs.TelemetryConnectionSettings{DestinationEndpoint: "https://l"},
		OtherConnections: map[string]*protobufs.OtherConnectionSettings{"db": {DestinationEndpoint: "db:1"}},
	}
	if !proto.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestPackagesAreOfferedAndTheirFilesServed(t *testing.T) {
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "file"), []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, "-files", directory, "-files-token", "sesame")
	p := newPoller(s)
	p.poll(t, &protobufs.AgentToServer{})
	s.do(t, `{"do":"packages","hash":"01","packages":{"p":{"version":"2","hash":"02","url":"http://%s/file",`+
		`"content_hash":"03","signature":"04","headers":{"Authorization":"Bearer sesame"},"addon":true}}}`, s.files.address)
	offered := p.poll(t, &protobufs.AgentToServer{}).GetPackagesAvailable()
	one := offered.GetPackages()["p"]
	if !bytes.Equal(offered.GetAllPackagesHash(), []byte{1}) || !bytes.Equal(one.GetHash(), []byte{2}) ||
		one.GetVersion() != "2" || one.GetType() != protobufs.PackageType_PackageType_Addon {
		t.Errorf("%v", offered)
	}
	for header, want := range map[string]int{"": http.StatusUnauthorized, "Bearer sesame": http.StatusPartialContent} {
		request, err := http.NewRequest(http.MethodGet, one.GetFile().GetDownloadUrl(), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", header)
		request.Header.Set("Range", "bytes=4-")
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != want || (want == http.StatusPartialContent && string(body) != "456789") {
			t.Errorf("%d %q", answer.StatusCode, body)
		}
	}
}

func TestCustomMessagesGoOneByOneAndInOrder(t *testing.T) {
	s := start(t, "-custom", "org.example.a", "-custom", "org.example.b")
	p := newPoller(s)
	names := p.poll(t, &protobufs.AgentToServer{}).GetCustomCapabilities().GetCapabilities()
	if fmt.Sprint(names) != "[org.example.a org.example.b]" {
		t.Errorf("%v", names)
	}
	for number := range 10 {
		s.do(t, `{"do":"custom","capability":"org.example.a","type":"t","data":"%02x"}`, number)
	}
	for number := range 10 {
		message := p.poll(t, &protobufs.AgentToServer{}).GetCustomMessage()
		if !bytes.Equal(message.GetData(), []byte{byte(number)}) || message.GetType() != "t" {
			t.Errorf("%d: %v", number, message)
		}
	}
}

func TestChangedCustomCapabilitiesArePushed(t *testing.T) {
	s := start(t)
	a := connect(t, "ws://"+s.address+"/v1/opamp", nil)
	s.await(t, eventMessage, nil)
	s.do(t, `{"do":"custom_capabilities","names":["org.example.c"]}`)
	next(t, a.messages, func(m *types.MessageData) bool {
		return fmt.Sprint(m.CustomCapabilities.GetCapabilities()) == "[org.example.c]"
	})
}

func TestEverythingElseAnAgentReportsIsShown(t *testing.T) {
	s := start(t)
	newPoller(s).poll(t, &protobufs.AgentToServer{
		ConnectionSettingsStatus: &protobufs.ConnectionSettingsStatus{
			LastConnectionSettingsHash: []byte{1},
			Status:                     protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_FAILED,
			ErrorMessage:               "no",
		},
		PackageStatuses: &protobufs.PackageStatuses{
			ServerProvidedAllPackagesHash: []byte{2},
			Packages: map[string]*protobufs.PackageStatus{"p": {
				Name: "p", AgentHasVersion: "1", AgentHasHash: []byte{3}, ServerOfferedVersion: "2", ServerOfferedHash: []byte{4},
				Status:          protobufs.PackageStatusEnum_PackageStatusEnum_Downloading,
				DownloadDetails: &protobufs.PackageDownloadDetails{DownloadPercent: 50},
			}},
		},
		AvailableComponents: &protobufs.AvailableComponents{
			Hash: []byte{5},
			Components: map[string]*protobufs.ComponentDetails{"receivers": {
				SubComponentMap: map[string]*protobufs.ComponentDetails{"otlp": {}},
			}},
		},
		CustomMessage:      &protobufs.CustomMessage{Capability: "c", Type: "t", Data: []byte{6}},
		CustomCapabilities: &protobufs.CustomCapabilities{},
	})
	event := s.await(t, eventMessage, nil)
	for part, want := range map[string]string{
		"connection_settings_status": `{"error":"no","hash":"01","status":"FAILED"}`,
		"package_statuses": `{"error":"","hash":"02","packages":{"p":{"download_percent":50,"error":"","has_hash":"03",` +
			`"has_version":"1","name":"p","offered_hash":"04","offered_version":"2","status":"Downloading"}}}`,
		"available_components": `{"components":{"receivers":{"components":{"otlp":{"components":{},"metadata":{}}},"metadata":{}}},` +
			`"hash":"05"}`,
		"custom_message":      `{"capability":"c","data":"06","type":"t"}`,
		"custom_capabilities": `[]`,
	} {
		if got, _ := json.Marshal(event[part]); string(got) != want {
			t.Errorf("%s is %s", part, got)
		}
	}
}

func TestComponentsAreAskedForByTheirOwnFlag(t *testing.T) {
	s := start(t)
	p := newPoller(s)
	p.poll(t, &protobufs.AgentToServer{})
	s.do(t, `{"do":"components"}`)
	if flags := p.poll(t, &protobufs.AgentToServer{}).GetFlags(); flags != 2 {
		t.Errorf("flags %d", flags)
	}
	if sent := s.await(t, eventSent, nil); fmt.Sprint(sent["parts"]) != "[components]" {
		t.Errorf("%v", sent)
	}
}

func TestRestartComesAloneUnlessToldOtherwise(t *testing.T) {
	s := start(t, "-offer", `{"":"a: 1\n"}`)
	p := newPoller(s)
	p.poll(t, &protobufs.AgentToServer{})
	accepts := uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig)
	for _, with := range []string{"", `,"files":{"":"b: 2\n"},"hash":"0b"`} {
		s.do(t, `{"do":"restart"%s}`, with)
		reply := p.poll(t, &protobufs.AgentToServer{Capabilities: accepts})
		if reply.GetCommand() == nil || (reply.GetRemoteConfig() != nil) != (with != "") {
			t.Errorf("%v", reply)
		}
	}
}

func TestAgentsWithoutACertificateMayBeLetIn(t *testing.T) {
	pair := testcerts.SelfSigned(t, t.TempDir())
	s := start(t, "-cert", pair.CertFile, "-key", pair.KeyFile, "-client-ca", pair.CertFile, "-client-optional")
	for peer, config := range map[string]*tls.Config{
		"":     {RootCAs: pair.Roots},
		"test": {RootCAs: pair.Roots, Certificates: []tls.Certificate{pair.TLS}},
	} {
		connect(t, "https://"+s.address+"/v1/opamp", func(settings *types.StartSettings) { settings.TLSConfig = config })
		s.await(t, eventMessage, func(event map[string]any) bool { return event["peer"] == peer })
	}
}

func TestRequestedCertificateIsIssuedForTheSameEndpointOrRefused(t *testing.T) {
	pair := testcerts.SelfSigned(t, t.TempDir())
	s := start(t, "-issuer-cert", pair.CertFile, "-issuer-key", pair.KeyFile)
	p := newPoller(s)
	request := func(csr []byte) *protobufs.ServerToAgent {
		return p.poll(t, &protobufs.AgentToServer{ConnectionSettingsRequest: &protobufs.ConnectionSettingsRequest{
			Opamp: &protobufs.OpAMPConnectionSettingsRequest{CertificateRequest: &protobufs.CertificateRequest{Csr: csr}},
		}})
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "me"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})

	offered := request(csr).GetConnectionSettings().GetOpamp()
	if offered.GetDestinationEndpoint() != p.url || len(offered.GetCertificate().GetPrivateKey()) > 0 {
		t.Errorf("%v", offered)
	}
	block, _ := pem.Decode(offered.GetCertificate().GetCert())
	issued, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	verify := x509.VerifyOptions{Roots: pair.Roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := issued.Verify(verify); err != nil || issued.Subject.CommonName != "me" || !key.PublicKey.Equal(issued.PublicKey) {
		t.Errorf("%v, %v", err, issued.Subject)
	}

	der[len(der)-1] ^= 1
	refused := request(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	if refused.GetErrorResponse() == nil || refused.GetConnectionSettings() != nil {
		t.Errorf("%v", refused)
	}
	s.do(t, `{"do":"no_certificates","text":"closed"}`)
	refused = request(csr)
	if refused.GetErrorResponse().GetType() != protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest ||
		refused.GetConnectionSettings() != nil {
		t.Errorf("%v", refused)
	}
}
