from kloaders.cli import main

main()
