//! Wire types, request signing, tokens and routers of the control and delivery API.
