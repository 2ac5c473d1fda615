// Package log keeps a logger in a context.
package log

import (
	"context"

	"github.com/go-logr/logr"
)

// FromContext gives the logger of the context, or one that drops everything.
func FromContext(ctx context.Context, _ ...any) logr.Logger {
	return logr.FromContextOrDiscard(ctx)
}

// IntoContext gives a context with that logger.
func IntoContext(ctx context.Context, logger logr.Logger) context.Context {
	return logr.NewContext(ctx, logger)
}
