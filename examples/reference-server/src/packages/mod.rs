//! Package files on their way to agents: the download endpoint on the OpAMP port.

mod body;
pub(crate) mod counts;
mod download;
mod fleet;
mod places;
mod port;
mod range;
mod shelf;
#[cfg(test)]
mod tests;

pub(crate) use download::{DownloadSettings, Downloads, PREFIX};
pub(crate) use fleet::FleetShelf;
pub(crate) use port::OpampPort;
