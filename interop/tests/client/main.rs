//! Our client, as library and as self-agent, against servers: that of opamp-go, and ours.

mod dead_peer;
mod environment;
mod go_server;
mod matrix;
mod reference_server;
