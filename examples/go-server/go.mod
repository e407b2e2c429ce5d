module postern.example/go-server

go 1.19
