//! Bad input gets one clear sentence and the right exit code.
