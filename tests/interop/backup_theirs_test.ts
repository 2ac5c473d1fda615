/** Barman's backups in our hands. */
import { NEWEST, OURS, PACKAGED, skipWithout } from "./commands.ts";
import { testBackups } from "./backup_interop.ts";

skipWithout(NEWEST, "newest");
skipWithout(PACKAGED, "packaged");
testBackups(17, NEWEST, [OURS]);
testBackups(15, PACKAGED, [OURS]);
