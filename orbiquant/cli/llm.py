"""`orbiquant llm`"""

import typer

llm_commands = typer.Typer(help="Fetch a local language model, and see whether it runs here.", no_args_is_help=True)
