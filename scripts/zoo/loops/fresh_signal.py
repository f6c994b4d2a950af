LOOPS = []
