//! opamp-store
