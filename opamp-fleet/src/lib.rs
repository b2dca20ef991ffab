//! opamp-fleet
