from kloaders.cli.main import main

main()
