"""AF_XDP sockets: what XDP redirects into an xskmap, and frames sent beside the stack."""
