//! Our client, as library and as self-agent, against servers: that of opamp-go, and ours.

mod certificates;
mod components;
mod custom;
mod dead_peer;
mod environment;
mod go_server;
mod matrix;
mod packages;
mod reference_server;
mod settings;
