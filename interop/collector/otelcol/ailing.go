package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
)

// How often the receiver `ailing` reads its file.
const ailingInterval = 20 * time.Millisecond

// ailingConfig is the config of the receiver `ailing`.
type ailingConfig struct {
	// StatusFile holds one line: `ok`, `recoverable <text>`, `permanent <text>` or `fatal <text>`. No file is `ok`.
	StatusFile string `mapstructure:"status_file"`
}

// Validate refuses a receiver that could never ail.
func (c *ailingConfig) Validate() error {
	if c.StatusFile == "" {
		return errors.New("status_file is missing")
	}
	return nil
}

// ailing receives nothing and is as well as its file says, by the interface that every component has for that.
type ailing struct {
	file string
	stop context.CancelFunc
	done chan struct{}
}

func newAilingFactory() receiver.Factory {
	return receiver.NewFactory(
		component.MustNewType("ailing"),
		func() component.Config { return &ailingConfig{} },
		receiver.WithTraces(newAiling, component.StabilityLevelDevelopment),
	)
}

func newAiling(
	_ context.Context, _ receiver.Settings, config component.Config, _ consumer.Traces,
) (receiver.Traces, error) {
	return &ailing{file: config.(*ailingConfig).StatusFile, done: make(chan struct{})}, nil
}

// Start begins to follow the file.
func (a *ailing) Start(_ context.Context, host component.Host) error {
	following, stop := context.WithCancel(context.Background())
	a.stop = stop
	go a.follow(following, host)
	return nil
}

// Shutdown ends that.
func (a *ailing) Shutdown(context.Context) error {
	if a.stop == nil {
		return nil
	}
	a.stop()
	<-a.done
	return nil
}

func (a *ailing) follow(following context.Context, host component.Host) {
	defer close(a.done)
	ticker := time.NewTicker(ailingInterval)
	defer ticker.Stop()
	last := "ok"
	for {
		select {
		case <-following.Done():
			return
		case <-ticker.C:
		}
		content, err := os.ReadFile(a.file)
		if err != nil {
			continue
		}
		if line := strings.TrimSpace(string(content)); line != last && line != "" {
			last = line
			componentstatus.ReportStatus(host, event(line))
		}
	}
}

func event(line string) *componentstatus.Event {
	kind, text, _ := strings.Cut(line, " ")
	switch kind {
	case "recoverable":
		return componentstatus.NewRecoverableErrorEvent(errors.New(text))
	case "permanent":
		return componentstatus.NewPermanentErrorEvent(errors.New(text))
	case "fatal":
		return componentstatus.NewFatalErrorEvent(errors.New(text))
	default:
		return componentstatus.NewEvent(componentstatus.StatusOK)
	}
}
