package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"

	"opamp-rs/interop/opamp-go/internal/testcerts"
)

const (
	applied = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED
	failed  = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_FAILED
)

func settingsOf(hash, endpoint string) *protobufs.ServerToAgent {
	return &protobufs.ServerToAgent{ConnectionSettings: &protobufs.ConnectionSettingsOffers{
		Hash:  []byte(hash),
		Opamp: &protobufs.OpAMPConnectionSettings{DestinationEndpoint: endpoint, HeartbeatIntervalSeconds: 1},
	}}
}

func reportsSettings(hash string, status protobufs.ConnectionSettingsStatuses) func(*protobufs.AgentToServer) bool {
	return func(m *protobufs.AgentToServer) bool {
		report := m.GetConnectionSettingsStatus()
		return string(report.GetLastConnectionSettingsHash()) == hash && report.GetStatus() == status
	}
}

// secured wants the client certificate of a pair, or one that the pair has signed.
func secured(t *testing.T, pair *testcerts.Pair) *goServer {
	return startGoServerWith(t, &tls.Config{
		Certificates: []tls.Certificate{pair.TLS}, ClientCAs: pair.Roots, ClientAuth: tls.RequireAndVerifyClientCert,
	})
}

func TestOfferedServerIsMovedToAndKeptOverARestart(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		pair := testcerts.SelfSigned(t, t.TempDir())
		other := secured(t, pair)
		scheme, _, _ := strings.Cut(url, "://")
		state := filepath.Join(t.TempDir(), "state.json")
		first := startAgent(t, "-url", url, "-state", state, "-accept-settings")
		offer := settingsOf("new", scheme+"s://"+other.url)
		offer.ConnectionSettings.Opamp.Certificate = &protobufs.TLSCertificate{Cert: pair.CertPEM, PrivateKey: pair.KeyPEM}
		offer.ConnectionSettings.Opamp.Tls = &protobufs.TLSConnectionSettings{CaPemContents: string(pair.CertPEM)}
		s.answerOnce(offer)
		first.await(t, eventSettingsApplied)
		there := other.next(t, reportsSettings("new", applied))
		if there.GetAgentDescription() == nil {
			t.Errorf("%v", there)
		}
		first.quit(t)
		startAgent(t, "-url", url, "-state", state, "-accept-settings")
		other.next(t, func(m *protobufs.AgentToServer) bool {
			return m.GetSequenceNum() == 0 && reportsSettings("new", applied)(m)
		})
	})
}

func TestSettingsThatReachNobodyAreTakenBack(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		scheme, _, _ := strings.Cut(url, "://")
		r := startAgent(t, "-url", url, "-accept-settings", "-trial", "300ms")
		s.answerOnce(settingsOf("bad", scheme+"://127.0.0.1:1/v1/opamp"))
		r.await(t, eventSettingsFailed)
		report := s.next(t, reportsSettings("bad", failed))
		if report.GetConnectionSettingsStatus().GetErrorMessage() == "" {
			t.Errorf("%v", report)
		}
	})
}

func TestSettingsOverWhichTheServerRefusesTheAgentAreTakenBack(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		other := startGoServer(t)
		other.answerOnce(&protobufs.ServerToAgent{ErrorResponse: &protobufs.ServerErrorResponse{
			Type: protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, ErrorMessage: "who?",
		}})
		scheme, _, _ := strings.Cut(url, "://")
		r := startAgent(t, "-url", url, "-accept-settings")
		s.answerOnce(settingsOf("strange", scheme+"://"+other.url))
		if taken := r.await(t, eventSettingsFailed); taken["error"] != "who?" {
			t.Errorf("%v", taken)
		}
		s.next(t, reportsSettings("strange", failed))
	})
}

func TestUnusableSettingsAreNotEvenTried(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		r := startAgent(t, "-url", url, "-accept-settings")
		encrypted := strings.Replace(url, "://", "s://", 1)
		for number, spoil := range []func(*protobufs.OpAMPConnectionSettings){
			func(o *protobufs.OpAMPConnectionSettings) { o.DestinationEndpoint = "ftp://127.0.0.1" },
			func(o *protobufs.OpAMPConnectionSettings) {
				o.Certificate = &protobufs.TLSCertificate{Cert: []byte("x"), PrivateKey: []byte("y")}
			},
			func(o *protobufs.OpAMPConnectionSettings) {
				o.Certificate = &protobufs.TLSCertificate{Cert: []byte("x")}
			},
			func(o *protobufs.OpAMPConnectionSettings) {
				o.Tls = &protobufs.TLSConnectionSettings{InsecureSkipVerify: true}
			},
			func(o *protobufs.OpAMPConnectionSettings) {
				o.Tls = &protobufs.TLSConnectionSettings{CaPemContents: "x"}
			},
		} {
			offer := settingsOf(fmt.Sprint(number), encrypted)
			spoil(offer.ConnectionSettings.Opamp)
			s.answerOnce(offer)
			r.commands <- "health ok" // the interval of the offer before is in force, refused as it was
			if refused := r.await(t, eventSettingsOffered); refused["error"] == nil {
				t.Errorf("%d: %v", number, refused)
			}
			s.next(t, reportsSettings(fmt.Sprint(number), failed))
		}
	})
}

func TestOwnTelemetryAndOtherConnectionsAreTaken(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		r := startAgent(t, "-url", url, "-accept-settings")
		s.answerOnce(&protobufs.ServerToAgent{ConnectionSettings: &protobufs.ConnectionSettingsOffers{
			Hash:             []byte("own"),
			OwnMetrics:       &protobufs.TelemetryConnectionSettings{DestinationEndpoint: "https://localhost/v1/metrics"},
			OtherConnections: map[string]*protobufs.OtherConnectionSettings{"db": {}},
		}})
		offered := r.await(t, eventConnectionSettings)
		if fmt.Sprint(offered["parts"]) != "[other:db own_metrics]" || offered["hash"] != hex.EncodeToString([]byte("own")) {
			t.Errorf("%v", offered)
		}
		s.next(t, reportsSettings("own", applied))
	})
}

func TestRequestedCertificateIsUsedWithTheKeyThatStayedHere(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		pair := testcerts.SelfSigned(t, t.TempDir())
		other := secured(t, pair)
		scheme, _, _ := strings.Cut(url, "://")
		r := startAgent(t, "-url", url, "-accept-settings")
		r.commands <- "request_certificate"
		request := s.next(t, func(m *protobufs.AgentToServer) bool { return m.GetConnectionSettingsRequest() != nil })
		csr := request.GetConnectionSettingsRequest().GetOpamp().GetCertificateRequest().GetCsr()
		offer := settingsOf("issued", scheme+"s://"+other.url)
		offer.ConnectionSettings.Opamp.Certificate = &protobufs.TLSCertificate{Cert: pair.Sign(t, csr)}
		offer.ConnectionSettings.Opamp.Tls = &protobufs.TLSConnectionSettings{CaPemContents: string(pair.CertPEM)}
		s.answerOnce(offer)
		r.await(t, eventSettingsApplied)
		other.next(t, reportsSettings("issued", applied))
	})
}

func TestTenCustomMessagesGoEachWayInOrder(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		r := startAgent(t, "-url", url, "-custom", "org.example.echo")
		first := s.next(t, func(*protobufs.AgentToServer) bool { return true })
		if fmt.Sprint(first.GetCustomCapabilities().GetCapabilities()) != "[org.example.echo]" {
			t.Errorf("%v", first)
		}
		for number := range 10 {
			r.commands <- fmt.Sprintf("custom org.example.echo ping %02x", number)
			s.answerOnce(&protobufs.ServerToAgent{CustomMessage: &protobufs.CustomMessage{
				Capability: "org.example.echo", Type: "pong", Data: []byte{byte(number)},
			}})
			message := s.next(t, func(m *protobufs.AgentToServer) bool { return m.GetCustomMessage() != nil })
			if !bytes.Equal(message.GetCustomMessage().GetData(), []byte{byte(number)}) {
				t.Errorf("%d: %v", number, message)
			}
			received := r.await(t, eventCustomMessage)
			if received["data"] != fmt.Sprintf("%02x", number) || received["type"] != "pong" {
				t.Errorf("%d: %v", number, received)
			}
		}
		r.commands <- "custom_capabilities org.example.other"
		s.next(t, func(m *protobufs.AgentToServer) bool {
			return fmt.Sprint(m.GetCustomCapabilities().GetCapabilities()) == "[org.example.other]"
		})
		r.commands <- "custom org.example.echo ping 00"
		r.await(t, eventCommandRefused)
	})
}

func TestComponentsAreReportedByHashUntilAskedFor(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		r := startAgent(t, "-url", url, "-component", "otlp=1", "-component", "batch=2")
		first := s.next(t, func(*protobufs.AgentToServer) bool { return true }).GetAvailableComponents()
		if len(first.GetHash()) == 0 || len(first.GetComponents()) > 0 {
			t.Errorf("%v", first)
		}
		s.answerOnce(&protobufs.ServerToAgent{
			Flags: uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportAvailableComponents),
		})
		s.next(t, func(m *protobufs.AgentToServer) bool { return len(m.GetAvailableComponents().GetComponents()) == 2 })
		r.commands <- "components otlp 2"
		changed := s.next(t, func(m *protobufs.AgentToServer) bool { return m.GetAvailableComponents() != nil })
		if bytes.Equal(changed.GetAvailableComponents().GetHash(), first.GetHash()) {
			t.Errorf("%v", changed)
		}
	})
}

func TestPackageIsInstalledAndOneWithAnotherContentIsNot(t *testing.T) {
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.Header.Get("X-Key") == "sesame" {
			fmt.Fprint(w, request.URL.Path)
		}
	}))
	t.Cleanup(files.Close)
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		directory := filepath.Join(t.TempDir(), "packages")
		r := startAgent(t, "-url", url, "-packages", directory)
		offer := func(all, version, content string) *protobufs.ServerToAgent {
			hash := sha256.Sum256([]byte(content))
			return &protobufs.ServerToAgent{PackagesAvailable: &protobufs.PackagesAvailable{
				AllPackagesHash: []byte(all),
				Packages: map[string]*protobufs.PackageAvailable{"p": {
					Version: version, Hash: []byte("hash of " + version),
					File: &protobufs.DownloadableFile{
						DownloadUrl: files.URL + "/" + version, ContentHash: hash[:],
						Headers: &protobufs.Headers{Headers: []*protobufs.Header{{Key: "X-Key", Value: "sesame"}}},
					},
				}},
			}}
		}
		reports := func(all, version string, status protobufs.PackageStatusEnum) func(*protobufs.AgentToServer) bool {
			return func(m *protobufs.AgentToServer) bool {
				one := m.GetPackageStatuses().GetPackages()["p"]
				return string(m.GetPackageStatuses().GetServerProvidedAllPackagesHash()) == all && one.GetStatus() == status &&
					one.GetAgentHasVersion() == version
			}
		}
		s.answerOnce(offer("all 1", "1", "/1"))
		s.next(t, reports("all 1", "1", protobufs.PackageStatusEnum_PackageStatusEnum_Installed))
		r.await(t, eventPackagesSynced)
		s.answerOnce(offer("all 2", "2", "something else"))
		s.next(t, reports("all 2", "1", protobufs.PackageStatusEnum_PackageStatusEnum_InstallFailed))
		synced := r.await(t, eventPackagesSynced)
		content, err := os.ReadFile(filepath.Join(directory, "package-"+hex.EncodeToString([]byte("p"))))
		if err != nil || string(content) != "/1" || fmt.Sprint(synced["names"]) != "[p]" {
			t.Errorf("%q, %v, %v", content, err, synced)
		}
		r.quit(t)
		startAgent(t, "-url", url, "-packages", directory)
		s.next(t, func(m *protobufs.AgentToServer) bool {
			return m.GetSequenceNum() == 0 && reports("all 2", "1", protobufs.PackageStatusEnum_PackageStatusEnum_InstallFailed)(m)
		})
	})
}

func TestUIDIsAskedForAndAdopted(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		r := startAgent(t, "-url", url, "-request-uid")
		first := s.next(t, func(*protobufs.AgentToServer) bool { return true })
		if first.GetFlags() != uint64(protobufs.AgentToServerFlags_AgentToServerFlags_RequestInstanceUid) {
			t.Errorf("flags %d", first.GetFlags())
		}
		uid := bytes.Repeat([]byte{7}, 16)
		s.answerOnce(&protobufs.ServerToAgent{AgentIdentification: &protobufs.AgentIdentification{NewInstanceUid: uid}})
		r.await(t, eventAgentIdentification)
		s.next(t, func(m *protobufs.AgentToServer) bool { return bytes.Equal(m.GetInstanceUid(), uid) })
	})
}
