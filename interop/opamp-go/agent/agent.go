package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
)

const capabilities = protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus |
	protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat |
	protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand

// ownUpdate marks the context of our own UpdateEffectiveConfig calls. The client
// asks for the effective config in three cases (the first message, our updates,
// a server that set ReportFullState) and says in none of them which one it is.
type ownUpdate struct{}

// agent is one agent over any number of client lives: a restart command and
// accepted connection settings end one life and begin the next.
type agent struct {
	options    options
	flags      connection // what the flags say
	connection connection // what is used
	events     *events
	restart    chan struct{}
	candidates chan candidate
	packages   *packageStore // nil if it takes none

	mutex          sync.Mutex // guards what follows; callbacks come from the client's goroutines
	state          *state
	attributes     map[string]string
	components     map[string]string
	custom         []string
	healthy        bool
	lastError      string
	startTime      time.Time
	client         client.OpAMPClient
	life           *life
	requestedKey   string // PEM, the key of the certificate request that was sent last
	offeredHash    []byte // of the connection settings that are being handed over
	settingsStatus *protobufs.ConnectionSettingsStatus
	firstReport    atomic.Bool
}

func newAgent(o options, out *events) (*agent, error) {
	connection, err := newConnection(o)
	if err != nil {
		return nil, err
	}
	state, err := loadState(o.stateFile)
	if err != nil {
		return nil, err
	}
	switch {
	case o.uid != "":
		uid, err := uuid.Parse(o.uid)
		if err != nil {
			return nil, fmt.Errorf("-uid: %w", err)
		}
		state.UID = uid.String()
	case state.UID == "":
		uid, err := uuid.NewV7()
		if err != nil {
			return nil, err
		}
		state.UID = uid.String()
	}
	if err := state.save(); err != nil {
		return nil, err
	}
	a := &agent{
		options:    o,
		flags:      connection,
		connection: connection,
		events:     out,
		restart:    make(chan struct{}, 1),
		candidates: make(chan candidate, 1),
		state:      state,
		attributes: map[string]string{"os.type": "linux"},
		components: o.components,
		custom:     o.custom,
		healthy:    true,
	}
	if o.packages != "" {
		if a.packages, err = openPackages(o.packages); err != nil {
			return nil, err
		}
	}
	if o.acceptSettings && state.Settings != nil {
		if a.connection, err = state.Settings.connection(connection); err != nil {
			return nil, fmt.Errorf("the settings in %s: %w", o.stateFile, err)
		}
		a.settingsStatus = settingsStatus(state.Settings.Hash, nil)
	}
	return a, nil
}

// run serves until the context ends or `quit` arrives, then leaves gracefully.
func (a *agent) run(ctx context.Context, commands <-chan string) error {
	if err := a.begin(); err != nil {
		return err
	}
	a.events.Emit(eventStarted, fields{"uid": a.state.UID, "url": a.options.url})

	var healthTick <-chan time.Time
	if a.options.healthInterval > 0 {
		ticker := time.NewTicker(a.options.healthInterval)
		defer ticker.Stop()
		healthTick = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return a.leave()
		case <-healthTick:
			if err := a.reportHealth(); err != nil {
				return err
			}
		case <-a.restart:
			if err := a.end(); err != nil {
				return err
			}
			if err := a.begin(); err != nil {
				return err
			}
			a.events.Emit(eventRestarted, fields{"start_time_unix_nano": a.startTime.UnixNano()})
		case next := <-a.candidates:
			if err := a.tryOut(next); err != nil {
				return err
			}
		case line := <-commands:
			words := strings.Fields(line)
			if words[0] == "quit" {
				return a.leave()
			}
			if err := a.command(words); err != nil {
				a.events.Emit(eventCommandRefused, fields{"command": words, "error": err.Error()})
			} else {
				a.events.Emit(eventCommandDone, fields{"command": words})
			}
		}
	}
}

// begin starts a life: a new client with the kept identity, config and status.
func (a *agent) begin() error {
	current, settings, err := a.prepare()
	if err != nil {
		return err
	}
	// Not under the mutex: the HTTP client asks for the effective config inside Start.
	return current.Start(context.Background(), settings)
}

func (a *agent) prepare() (client.OpAMPClient, types.StartSettings, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.startTime = time.Now()
	a.firstReport.Store(true)
	current := a.connection.newClient()
	a.client = current

	born := newLife()
	a.life = born

	uid, err := uuid.Parse(a.state.UID)
	if err != nil {
		return nil, types.StartSettings{}, err
	}
	wanted := a.capabilities()
	errs := []error{current.SetAgentDescription(a.description()), current.SetHealth(a.health())}
	if len(a.components) > 0 {
		errs = append(errs, current.SetAvailableComponents(componentsToWire(a.components)))
	}
	if len(a.custom) > 0 {
		errs = append(errs, current.SetCustomCapabilities(&protobufs.CustomCapabilities{Capabilities: a.custom}))
	}
	if a.options.requestUID {
		current.SetFlags(protobufs.AgentToServerFlags_AgentToServerFlags_RequestInstanceUid)
	}
	settings := types.StartSettings{
		OpAMPServerURL:     a.connection.url,
		Header:             a.connection.header,
		TLSConfig:          a.connection.tls,
		InstanceUid:        types.InstanceUid(uid),
		RemoteConfigStatus: a.state.RemoteStatus.toWire(),
		HeartbeatInterval:  &a.options.heartbeat,

		LastConnectionSettingsStatus: a.settingsStatus,
		Callbacks: types.Callbacks{
			OnConnect: func(context.Context) { a.events.Emit(eventConnected, nil) },
			OnConnectFailed: func(_ context.Context, err error) {
				a.events.Emit(eventConnectFailed, fields{"error": err.Error()})
				born.end(err)
			},
			OnError: func(_ context.Context, response *protobufs.ServerErrorResponse) {
				a.events.Emit(eventErrorResponse, fields{
					"type": response.GetType().String(), "error": response.GetErrorMessage(),
					"retry_after_ns": response.GetRetryInfo().GetRetryAfterNanoseconds(),
				})
				born.end(errors.New(response.GetErrorMessage()))
			},
			OnMessage: func(ctx context.Context, message *types.MessageData) {
				born.answer()
				a.onMessage(ctx, current, message)
			},
			OnCommand:                 a.onCommand,
			OnOpampConnectionSettings: a.onOpAMPSettings,
			OnConnectionSettings:      a.onTelemetrySettings,
			GetEffectiveConfig:        a.effectiveConfig,
		},
	}
	if a.packages == nil {
		errs = append(errs, current.SetCapabilities(&wanted))
	} else {
		// SetCapabilities refuses those of packages until the provider is known, which is in Start: only
		// the deprecated field gets them across.
		settings.PackagesStateProvider, settings.Capabilities = a.packages, wanted
	}
	return current, settings, errors.Join(errs...)
}

// capabilities are those that the flags ask for.
func (a *agent) capabilities() protobufs.AgentCapabilities {
	wanted := capabilities
	if a.options.acceptSettings {
		wanted |= settingsCapabilities
	}
	if a.packages != nil {
		wanted |= packageCapabilities
	}
	if len(a.components) > 0 {
		wanted |= protobufs.AgentCapabilities_AgentCapabilities_ReportsAvailableComponents
	}
	return wanted
}

// end stops the current client. Over WebSocket it sends agent_disconnect; the
// HTTP client of opamp-go leaves without a word.
func (a *agent) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return a.client.Stop(ctx)
}

func (a *agent) leave() error {
	if err := a.end(); err != nil {
		return err
	}
	a.events.Emit(eventStopped, nil)
	return nil
}

// onMessage runs on the client's receiving goroutine, never on two at a time.
func (a *agent) onMessage(ctx context.Context, current client.OpAMPClient, message *types.MessageData) {
	if identification := message.AgentIdentification; identification != nil {
		a.adoptUID(identification.GetNewInstanceUid())
	}
	if offer := message.RemoteConfig; offer != nil {
		a.applyOffer(ctx, current, offer)
	}
	if hash := message.OfferedConnectionsSettingsHash; hash != nil {
		a.mutex.Lock()
		a.offeredHash = hash // the callbacks that follow are given the parts alone
		a.mutex.Unlock()
	}
	if offer := message.PackagesAvailable; offer != nil {
		a.syncPackages(ctx, offer, message.PackageSyncer)
	}
	if announced := message.CustomCapabilities; announced != nil {
		a.events.Emit(eventCustomCapabilities, fields{"names": orEmpty(announced.GetCapabilities())})
	}
	if custom := message.CustomMessage; custom != nil {
		a.events.Emit(eventCustomMessage, fields{
			"capability": custom.GetCapability(), "type": custom.GetType(), "data": hex.EncodeToString(custom.GetData()),
		})
	}
}

func (a *agent) applyOffer(ctx context.Context, current client.OpAMPClient, offer *protobufs.AgentRemoteConfig) {
	files := configFromWire(offer.GetConfig())
	hash := hex.EncodeToString(offer.GetConfigHash())
	a.events.Emit(eventRemoteConfig, fields{"hash": hash, "files": files.names()})

	status := &remoteStatus{Hash: offer.GetConfigHash()}
	status.set(files.check(a.options.rejectMarker))

	// Kept before it is reported: what the server has heard must survive a kill.
	a.mutex.Lock()
	previous := a.state.Config
	a.state.RemoteStatus = status
	if status.Error == "" {
		a.state.Config = files
	}
	if err := a.state.save(); err != nil {
		a.state.Config = previous
		status.set(err)
	}
	a.mutex.Unlock()

	if status.Error == "" {
		a.report(current.UpdateEffectiveConfig(context.WithValue(ctx, ownUpdate{}, true)))
	}
	a.report(current.SetRemoteConfigStatus(status.toWire()))
	a.events.Emit(eventRemoteConfigStatus, fields{"hash": hash, "status": status.word(), "error": status.Error})
}

// report shows a call that the client refused; that is a mistake of this program.
func (a *agent) report(err error) {
	if err != nil {
		a.events.Emit(eventRefusedByClient, fields{"error": err.Error()})
	}
}

func (a *agent) adoptUID(bytes []byte) {
	uid, err := uuid.FromBytes(bytes)
	if err != nil {
		return // the client has already refused it
	}
	a.mutex.Lock()
	a.state.UID = uid.String()
	err = a.state.save()
	a.mutex.Unlock()
	more := fields{"uid": uid.String()}
	if err != nil {
		more["error"] = err.Error()
	}
	a.events.Emit(eventAgentIdentification, more)
}

// onCommand only asks for the restart: stopping a client inside its own callback
// would wait for itself.
func (a *agent) onCommand(_ context.Context, command *protobufs.ServerToAgentCommand) error {
	if command.GetType() != protobufs.CommandType_CommandType_Restart {
		return fmt.Errorf("unknown command %v", command.GetType())
	}
	a.events.Emit(eventRestartCommand, nil)
	select {
	case a.restart <- struct{}{}:
	default: // one restart is already due
	}
	return nil
}

func (a *agent) effectiveConfig(ctx context.Context) (*protobufs.EffectiveConfig, error) {
	first := a.firstReport.CompareAndSwap(true, false)
	if !first && ctx.Value(ownUpdate{}) == nil {
		a.events.Emit(eventFullStateRequested, nil)
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return &protobufs.EffectiveConfig{ConfigMap: a.state.Config.toWire()}, nil
}
