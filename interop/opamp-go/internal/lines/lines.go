// Package lines is how the programs of this module are driven: one event is one
// JSON object on one line of stdout, and one line of stdin is one command.
package lines

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"sync"
)

// lineMax bounds one command. A config that is offered comes on one line.
const lineMax = 16 << 20

// Fields are the keys of an event beside "event".
type Fields map[string]any

// Events writes one JSON object a line. Safe for concurrent use: opamp-go calls
// back from several goroutines.
type Events struct {
	mutex sync.Mutex
	out   *json.Encoder
}

// NewEvents writes to out.
func NewEvents(out io.Writer) *Events {
	return &Events{out: json.NewEncoder(out)}
}

// Emit writes an event.
func (e *Events) Emit(name string, more Fields) {
	line := Fields{"event": name}
	for key, value := range more {
		line[key] = value
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	// Nobody listens any more when this fails; the program goes on with its work.
	_ = e.out.Encode(line)
}

// Read turns the lines that are not empty into a channel. At the end, or at a
// line above 16 MiB, the channel gets the command atEnd, unless that is empty: a
// program without a terminal keeps running.
func Read(stdin io.Reader, atEnd string) <-chan string {
	commands := make(chan string)
	go func() {
		scanner := bufio.NewScanner(stdin)
		scanner.Buffer(nil, lineMax)
		for scanner.Scan() {
			if line := strings.TrimSpace(scanner.Text()); line != "" {
				commands <- line
			}
		}
		if atEnd != "" {
			commands <- atEnd
		}
	}()
	return commands
}
