"""``python -m experiments`` lists the scripts; ``python -m experiments NAME …`` runs one."""

from experiments.command_line import main

if __name__ == "__main__":
    main()
