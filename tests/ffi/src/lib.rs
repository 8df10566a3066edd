// SPDX-License-Identifier: GPL-2.0-only
//! Nothing but what rustls-ffi exports.

extern crate rustls_ffi;
