expose "web" {}
