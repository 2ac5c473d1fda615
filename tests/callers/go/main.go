// Drives barman-cloud executables through CloudNativePG's own library, as its plugin and its instance
// manager do. One JSON request on standard input, one JSON answer on standard output; the library's log
// goes to standard error. The test that builds and runs it is library_test.ts.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	machinery "github.com/cloudnative-pg/machinery/pkg/api"
	"github.com/cloudnative-pg/machinery/pkg/log"

	"github.com/cloudnative-pg/barman-cloud/pkg/api"
	"github.com/cloudnative-pg/barman-cloud/pkg/archiver"
	"github.com/cloudnative-pg/barman-cloud/pkg/backup"
	"github.com/cloudnative-pg/barman-cloud/pkg/catalog"
	"github.com/cloudnative-pg/barman-cloud/pkg/command"
	"github.com/cloudnative-pg/barman-cloud/pkg/restorer"
)

type request struct {
	Operation string `json:"operation"`
	// The store as a user writes it in a Cluster or ObjectStore resource.
	Configuration api.BarmanObjectStoreConfiguration `json:"configuration"`
	Server        string                             `json:"server"`
	// The environment that the library hands to the commands, as NAME=VALUE.
	Environment []string `json:"environment"`
	Name        string   `json:"name"`
	Policy      string   `json:"policy"`
	Spool       string   `json:"spool"`
	DataDir     string   `json:"dataDir"`
	Destination string   `json:"destination"`
	Wals        []string `json:"wals"`
	TempDir     string   `json:"tempDir"`
	// The target of a recovery, for "find".
	TargetTime string `json:"targetTime"`
	TargetLSN  string `json:"targetLSN"`
	TargetTLI  string `json:"targetTLI"`
	BackupID   string `json:"backupID"`
}

func (r request) GetBackupID() string   { return r.BackupID }
func (r request) GetTargetTime() string { return r.TargetTime }
func (r request) GetTargetLSN() string  { return r.TargetLSN }
func (r request) GetTargetTLI() string  { return r.TargetTLI }

type walResult struct {
	Wal   string `json:"wal"`
	Error string `json:"error"`
	// Which of the library's classes the exit code was put into.
	Class string `json:"class"`
	Path  string `json:"path"`
}

type answer struct {
	Error   string                 `json:"error"`
	Options []string               `json:"options"`
	Backups []catalog.BarmanBackup `json:"backups"`
	Latest  string                 `json:"latest"`
	First   *time.Time             `json:"first"`
	Wals    []walResult            `json:"wals"`
}

func main() {
	var wanted request
	if err := json.NewDecoder(os.Stdin).Decode(&wanted); err != nil {
		fmt.Fprintln(os.Stderr, "the request is no JSON:", err)
		os.Exit(2)
	}
	// Which secret the keys come from does not matter here: they are in the environment.
	if wanted.Configuration.AWS == nil {
		wanted.Configuration.AWS = &api.S3Credentials{
			AccessKeyIDReference: &machinery.SecretKeySelector{Key: "id"},
		}
	}
	ctx := log.IntoContext(context.Background(), log.GetLogger())
	var told answer
	if err := run(ctx, wanted, &told); err != nil {
		told.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		os.Exit(2)
	}
}

func run(ctx context.Context, wanted request, told *answer) error {
	configuration := &wanted.Configuration
	switch wanted.Operation {
	case "list", "find":
		list, err := command.GetBackupList(ctx, configuration, wanted.Server, wanted.Environment)
		if err != nil {
			return err
		}
		if wanted.Operation == "find" {
			found, err := list.FindBackupInfo(wanted)
			if err != nil || found == nil {
				return err
			}
			told.Backups = []catalog.BarmanBackup{*found}
			return nil
		}
		told.Backups = list.List
		told.First = list.FirstRecoverabilityPoint()
		if latest := list.LatestBackupInfo(); latest != nil {
			told.Latest = latest.ID
		}
		return nil
	case "show":
		found, err := command.GetBackupByName(
			ctx, wanted.Name, wanted.Server, configuration, wanted.Environment)
		if err != nil {
			return err
		}
		told.Backups = []catalog.BarmanBackup{*found}
		return nil
	case "delete":
		return command.DeleteBackupsByPolicy(
			ctx, configuration, wanted.Server, wanted.Environment, wanted.Policy)
	case "backup":
		taker := backup.NewBackupCommand(configuration)
		options, err := taker.GetBarmanCloudBackupOptions(ctx, wanted.Name, wanted.Server)
		if err != nil {
			return err
		}
		told.Options = options
		return taker.Take(ctx, wanted.Name, wanted.Server, wanted.Environment, wanted.TempDir)
	case "check", "archive":
		return archive(ctx, wanted, told)
	case "restore":
		return restore(ctx, wanted, told)
	}
	return fmt.Errorf("there is no operation %q", wanted.Operation)
}

func archive(ctx context.Context, wanted request, told *answer) error {
	flag := wanted.Spool + "-empty"
	walArchiver, err := archiver.New(ctx, wanted.Environment, wanted.Spool, wanted.DataDir, flag)
	if err != nil {
		return err
	}
	if wanted.Operation == "check" {
		options, err := walArchiver.BarmanCloudCheckWalArchiveOptions(
			ctx, &wanted.Configuration, wanted.Server)
		if err != nil {
			return err
		}
		told.Options = options
		return walArchiver.CheckWalArchiveDestination(ctx, options)
	}
	options, err := walArchiver.BarmanCloudWalArchiveOptions(
		ctx, &wanted.Configuration, wanted.Server)
	if err != nil {
		return err
	}
	told.Options = options
	// The instance manager runs in PGDATA and names segments as PostgreSQL does: pg_wal/0000….
	if err := os.Chdir(wanted.DataDir); err != nil {
		return err
	}
	for _, result := range walArchiver.ArchiveList(ctx, wanted.Wals, options) {
		one := walResult{Wal: result.WalName}
		if result.Err != nil {
			one.Error = result.Err.Error()
		}
		told.Wals = append(told.Wals, one)
	}
	return nil
}

func restore(ctx context.Context, wanted request, told *answer) error {
	walRestorer, err := restorer.New(ctx, wanted.Environment, wanted.Spool)
	if err != nil {
		return err
	}
	options, err := command.CloudWalRestoreOptions(ctx, &wanted.Configuration, wanted.Server)
	if err != nil {
		return err
	}
	told.Options = options
	for _, result := range walRestorer.RestoreList(ctx, wanted.Wals, wanted.Destination, options) {
		one := walResult{Wal: result.WalName, Path: result.DestinationPath}
		if result.Err != nil {
			one.Error = result.Err.Error()
			one.Class = classOf(result.Err)
		}
		told.Wals = append(told.Wals, one)
	}
	return nil
}

// Newer releases of the library have an error of its own for each class; the texts are in all of them.
func classOf(err error) string {
	if errors.Is(err, restorer.ErrWALNotFound) {
		return "not-found"
	}
	for text, class := range map[string]string{
		"connectivity failure": "connectivity",
		"invalid name":         "invalid-name",
		"generic error":        "generic",
	} {
		if strings.Contains(err.Error(), text) {
			return class
		}
	}
	return "unknown"
}
