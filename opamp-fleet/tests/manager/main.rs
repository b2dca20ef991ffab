//! The fleet manager with a real server and a real store, driven by polls on a virtual clock.

mod assignment;
mod audit;
mod configs;
mod heartbeat;
mod identity;
mod liveness;
mod outage;
mod recording;
mod restart;
mod support;
