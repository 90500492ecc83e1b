"""`vidlet completion`: a script for the shell, made of the parsers; it starts no Python when a key is pressed."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLE = "example: vidlet completion bash"

SCRIPT = """\
_vidlet() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" words=""
  case "${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}}" in
{values}
    *) if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"
       else case "${{COMP_WORDS[1]}} $cur" in
{options}
       esac; fi ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _vidlet vidlet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet completion`."""
    parser.add_argument(
        "shell",
        choices=["bash", "zsh"],
        help='in ~/.bashrc: eval "$(vidlet completion bash)"; in ~/.zshrc the same with zsh',
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print the script."""
    script = script_of(args.shell)
    if not args.json:
        print(script, end="")
    return {"shell": args.shell, "script": script}


def script_of(shell: str) -> str:
    """Commands, their options, and the values of those that have few; for everything else the shell offers files."""
    from ..recipe import recipe_names
    from . import COMMANDS, parser_of

    values, options = [], []
    for name in COMMANDS:
        actions = parser_of(name)._actions
        long = sorted(option for action in actions for option in action.option_strings if option.startswith("--"))
        options.append(f'         "{name} -"*) words="{" ".join(long)}" ;;')
        for action in actions:
            known = recipe_names() if "--recipe" in action.option_strings else action.choices
            if known and action.option_strings:
                values.append(f'    "{name} {action.option_strings[-1]}") words="{" ".join(map(str, known))}" ;;')
    begin = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n" if shell == "zsh" else ""
    parts = {"values": "\n".join(values), "options": "\n".join(options), "commands": " ".join(COMMANDS)}
    return begin + SCRIPT.format(**parts)
