package main

import "opamp-rs/interop/opamp-go/internal/lines"

// Names of events, the value of the key "event" in each line of output. A
// connection is the number of a WebSocket, in the order they were opened, and 0
// over plain HTTP.
const (
	eventListening        = "listening"         // address, files (address, if it serves any)
	eventRefused          = "refused"           // status: a request was turned away before any upgrade
	eventConnected        = "connected"         // connection, peer (common name of the client certificate)
	eventMessage          = "message"           // connection, peer, uid, sequence_num, capabilities, flags, parts, and each part that is there
	eventUnavailable      = "unavailable"       // connection, uid: a message was answered with UNAVAILABLE and nothing else
	eventSent             = "sent"              // connection, uid, parts: what an answer or push held beside the acknowledgement
	eventSendFailed       = "send_failed"       // connection, uid, error
	eventReadError        = "read_error"        // connection, error: a WebSocket ended otherwise than with code 1000, or carried no OpAMP
	eventConnectionClosed = "connection_closed" // connection
	eventCommandDone      = "command_done"      // command: a line of stdin took effect
	eventCommandRefused   = "command_refused"   // command, error
	eventStopped          = "stopped"           // the server ended in order
)

type fields = lines.Fields
