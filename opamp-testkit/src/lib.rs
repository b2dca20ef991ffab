//! opamp-testkit
