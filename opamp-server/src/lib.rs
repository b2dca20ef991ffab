//! opamp-server
