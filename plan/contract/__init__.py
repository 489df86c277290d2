"""The network contract: the documents' firewall tables as data, and the rules that a chosen one of them makes."""
