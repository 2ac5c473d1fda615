/** Completions for bash, zsh and fish: commands, options, the words that an option chooses from, files. */
import type { DocumentedCommand, DocumentedOption } from "./model.ts";

const NOTE = "# Made by scripts/docs.ts; do not edit.";

/** Arguments and values that are paths on this host. */
const PATHS = /^(wal_path|wal_dest|recovery_dir|directory|host|spool_dir)$/i;
/** Words that stand for a backup. */
const SHORTCUTS = ["first", "last", "last-failed"];

const optionsOf = ({ sections }: DocumentedCommand): DocumentedOption[] =>
  sections.flatMap(({ options }) => options);

type Expected =
  | { readonly kind: "words"; readonly words: readonly string[] }
  | { readonly kind: "path" }
  | { readonly kind: "anything" };

function expected(name: string, choices: readonly string[] = []): Expected {
  if (choices.length > 0) return { kind: "words", words: choices };
  if (/^format$/i.test(name)) return { kind: "words", words: ["console", "json"] };
  if (/^backup_id$/i.test(name)) return { kind: "words", words: SHORTCUTS };
  return PATHS.test(name) ? { kind: "path" } : { kind: "anything" };
}

const argumentsOf = ({ command }: DocumentedCommand): Expected[] =>
  command.positionals.map(({ metavar }) => expected(metavar));

/** For bash 4 and newer, without the bash-completion package. */
export function bashCompletion(commands: readonly DocumentedCommand[]): string {
  const cases = (lines: (documented: DocumentedCommand) => string[]) =>
    commands.flatMap((documented) => [
      `    ${documented.command.name})`,
      ...lines(documented).map((line) => `      ${line}`),
      "      ;;",
    ]);
  const quoted = (words: readonly string[]) => `"${words.join(" ")}"`;
  const answer = (value: Expected) =>
    value.kind === "words" ? `words:${value.words.join(" ")}` : value.kind;
  return [
    NOTE,
    "",
    "# What the command of $1 knows: its options, those that take a value, its arguments.",
    "_barman_cloud_command() {",
    "  case $1 in",
    ...cases((documented) => {
      const options = optionsOf(documented);
      const valued = options.filter(({ value }) => value !== null);
      return [
        `options=${quoted(options.flatMap(({ flags }) => flags))}`,
        `valued=${quoted(valued.flatMap(({ flags }) => flags))}`,
        `arguments=(${argumentsOf(documented).map((value) => `"${answer(value)}"`).join(" ")})`,
        ...valued.map(({ flags, value, choices }) =>
          [flags, expected(value ?? "", choices)] as const
        )
          .filter(([, value]) => value.kind !== "anything")
          .flatMap(([flags, value]) => flags.map((flag) => `values[${flag}]="${answer(value)}"`)),
      ];
    }),
    "    *) return 1 ;;",
    "  esac",
    "}",
    "",
    "_barman_cloud_answer() {",
    "  case $1 in",
    '    words:*) COMPREPLY=($(compgen -W "${1#words:}" -- "$2")) ;;',
    "    path) compopt -o filenames 2>/dev/null; local IFS=$'\\n'; COMPREPLY=($(compgen -f -- \"$2\")) ;;",
    "  esac",
    "}",
    "",
    "_barman_cloud() {",
    "  local current=${COMP_WORDS[COMP_CWORD]} name first=1 options valued i word position=0",
    "  local -a arguments",
    "  local -A values=()",
    "  COMPREPLY=()",
    "  name=${COMP_WORDS[0]##*/}",
    "  if [[ $name == barman-cloud ]]; then",
    "    if ((COMP_CWORD == 1)); then",
    `      COMPREPLY=($(compgen -W "${
      commands.map(({ command }) => command.name).join(" ")
    } --help --version" -- "$current"))`,
    "      return",
    "    fi",
    "    name=${COMP_WORDS[1]} first=2",
    "  fi",
    '  _barman_cloud_command "${name#barman-cloud-}" || return',
    "  # Bash takes --option=value apart at the sign.",
    "  local option=${COMP_WORDS[COMP_CWORD - 1]}",
    '  if [[ $current == "=" ]]; then',
    "    current=",
    '  elif [[ $option == "=" ]]; then',
    "    option=${COMP_WORDS[COMP_CWORD - 2]}",
    "  fi",
    '  if ((COMP_CWORD > first)) && [[ " $valued " == *" $option "* ]]; then',
    '    _barman_cloud_answer "${values[$option]:-}" "$current"',
    "    return",
    "  fi",
    "  if [[ $current == -* ]]; then",
    '    COMPREPLY=($(compgen -W "$options" -- "$current"))',
    "    return",
    "  fi",
    "  # A URL comes in pieces as well: a colon and what is beside it belong to one word.",
    "  for ((i = first; i < COMP_CWORD; i++)); do",
    "    word=${COMP_WORDS[i]}",
    '    if [[ $word == ":" || $word == "=" ]]; then',
    "      ((i++))",
    '    elif [[ " $valued " == *" $word "* ]]; then',
    '      [[ ${COMP_WORDS[i + 1]} == "=" ]] || ((i++))',
    "    elif [[ $word != -* ]]; then",
    "      ((position++))",
    "    fi",
    "  done",
    '  [[ ${COMP_WORDS[COMP_CWORD - 1]} == ":" || $current == ":" ]] && return',
    '  _barman_cloud_answer "${arguments[position]:-}" "$current"',
    "}",
    "",
    `complete -F _barman_cloud ${programs(commands).join(" ")}`,
    "",
  ].join("\n");
}

export function zshCompletion(commands: readonly DocumentedCommand[]): string {
  /** Inside single quotes, where _arguments reads brackets and colons. */
  const text = (words: string) =>
    words.replace(/[\\[\]:]/g, (sign) => `\\${sign}`).replaceAll("'", "'\\''");
  const action = (value: Expected) =>
    value.kind === "words" ? `(${text(value.words.join(" "))})` : value.kind === "path"
      ? "_files"
      // No words; a blank alone would be a message, beside which zsh does not insert a single match.
      : "( )";
  const option = ({ flags, value, choices, help, repeatable, greedy }: DocumentedOption) =>
    flags.map((flag) => {
      const star = repeatable || greedy ? "*" : "";
      const argument = value === null
        ? ""
        : `:${text(value.replaceAll(/[{}]/g, ""))}:${action(expected(value, choices))}`;
      const equals = value !== null && flag.startsWith("--") ? "=" : value !== null ? "+" : "";
      return `'${star}${flag}${equals}[${text(help)}]${argument}'`;
    });
  return [
    `#compdef ${programs(commands).join(" ")}`,
    NOTE,
    "",
    "_barman_cloud_command() {",
    "  case $1 in",
    ...commands.flatMap((documented) => [
      `    ${documented.command.name})`,
      "      _arguments -S \\",
      ...optionsOf(documented).flatMap(option).map((spec) => `        ${spec} \\`),
      ...documented.command.positionals.map(({ metavar, optional }, i) =>
        `        '${i + 1}:${optional === true ? ":" : ""}${metavar.toUpperCase()}:${
          action(expected(metavar))
        }' \\`
      ),
      "        && return",
      "      ;;",
    ]),
    "  esac",
    "  return 1",
    "}",
    "",
    "_barman_cloud() {",
    "  if [[ ${service:t} != barman-cloud ]]; then",
    "    _barman_cloud_command ${${service:t}#barman-cloud-}",
    "    return",
    "  fi",
    "  if ((CURRENT == 2)); then",
    "    local -a commands=(",
    ...commands.map(({ command }) => `      '${command.name}:${text(command.summary)}'`),
    "    )",
    "    _describe command commands",
    "    return",
    "  fi",
    "  local name=${words[2]#barman-cloud-}",
    "  shift words",
    "  ((CURRENT--))",
    "  _barman_cloud_command $name",
    "}",
    "",
    '_barman_cloud "$@"',
    "",
  ].join("\n");
}

export function fishCompletion(commands: readonly DocumentedCommand[]): string {
  const quoted = (text: string) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const lines = (documented: DocumentedCommand, start: string): string[] => [
    `${start} -f`,
    ...optionsOf(documented).map(({ flags, value, choices, help }) => {
      const names = flags.map((flag) =>
        flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`
      );
      const values = value === null ? [] : argumentOf(expected(value, choices));
      return [start, ...names, ...values, `-d ${quoted(help)}`].join(" ");
    }),
    ...(argumentsOf(documented).some(({ kind }) => kind === "path") ? [`${start} -F`] : []),
    ...argumentsOf(documented).flatMap((value) =>
      value.kind === "words" ? [`${start} -a ${quoted(value.words.join(" "))}`] : []
    ),
  ];
  const argumentOf = (value: Expected) =>
    value.kind === "words"
      ? ["-x", `-a ${quoted(value.words.join(" "))}`]
      : [value.kind === "path" ? "-r" : "-x"];
  const names = commands.map(({ command }) => command.name).join(" ");
  return [
    NOTE,
    "",
    ...commands.filter(({ barman }) => barman).flatMap((documented) => [
      ...lines(documented, `complete -c ${documented.program}`),
      "",
    ]),
    `complete -c barman-cloud -n ${quoted(`not __fish_seen_subcommand_from ${names}`)} -f`,
    ...commands.map(({ command }) =>
      `complete -c barman-cloud -n ${
        quoted(`not __fish_seen_subcommand_from ${names}`)
      } -a ${command.name} -d ${quoted(command.summary)}`
    ),
    "",
    ...commands.flatMap((documented) => [
      ...lines(
        documented,
        `complete -c barman-cloud -n ${
          quoted(`__fish_seen_subcommand_from ${documented.command.name}`)
        }`,
      ),
      "",
    ]),
  ].join("\n");
}

function programs(commands: readonly DocumentedCommand[]): string[] {
  return ["barman-cloud", ...commands.filter(({ barman }) => barman).map(({ program }) => program)];
}
