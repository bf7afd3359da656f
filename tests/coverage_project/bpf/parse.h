static __always_inline int is_short(struct xdp_md *ctx)
{
	if (ctx->data_end - ctx->data < 20)
		return 1;
	return 0;
}
