//! opamp-proto
