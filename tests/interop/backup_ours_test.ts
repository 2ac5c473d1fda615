/** Our backups in Barman's hands. */
import { NEWEST, OURS, PACKAGED, skipWithout } from "./commands.ts";
import { testBackups } from "./backup_interop.ts";

skipWithout(NEWEST, "newest");
skipWithout(PACKAGED, "packaged");
testBackups(17, OURS, [NEWEST]);
testBackups(15, OURS, [PACKAGED]);
