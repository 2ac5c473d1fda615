// Package zap has the names that the library configures its log by.
package zap

import (
	"flag"
	"io"

	"github.com/go-logr/logr"
	"go.uber.org/zap/zapcore"
)

// Options are taken and have no effect.
type Options struct {
	DestWriter           io.Writer
	Level                zapcore.LevelEnabler
	TimeEncoder          zapcore.TimeEncoder
	EncoderConfigOptions []func(*zapcore.EncoderConfig)
}

// BindFlags declares no flags.
func (*Options) BindFlags(*flag.FlagSet) {}

// Opts changes options.
type Opts func(*Options)

// UseFlagOptions changes nothing.
func UseFlagOptions(*Options) Opts { return func(*Options) {} }

// New gives a logger that drops everything.
func New(...Opts) logr.Logger { return logr.Discard() }
