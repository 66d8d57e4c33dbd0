def test_import():
    import dualgrain
